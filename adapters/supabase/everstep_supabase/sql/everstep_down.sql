-- Undoes everstep.sql: every run and its history are gone afterwards.
drop schema if exists everstep cascade;
