-- Undoes everstep.sql: every run and its history are gone afterwards.
do $$
begin
    if to_regnamespace('cron') is not null then
        perform cron.unschedule(jobid) from cron.job where jobname in ('everstep', 'everstep-purge');
    end if;
end $$;
drop function if exists public.everstep_rpc(text);
drop schema if exists everstep cascade;
