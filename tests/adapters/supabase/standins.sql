-- What Supabase puts into a database and a bare Postgres lacks: roles, pg_cron, pg_net, Vault, Database Webhooks. Names,
-- signatures, defaults and error texts are those of pg_cron 1.6 and pg_net 0.20; standins.py has their workers.

create role anon nologin noinherit;
create role authenticated nologin noinherit;
create role service_role nologin noinherit bypassrls;
create role authenticator login noinherit password 'authenticator';
grant anon, authenticated, service_role to authenticator;
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
grant usage on schema public to anon, authenticated, service_role;
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges in schema public grant all on functions to anon, authenticated, service_role;

create schema cron;
create sequence cron.jobid_seq;
create sequence cron.runid_seq;
create table cron.job (
    jobid bigint primary key default nextval('cron.jobid_seq'),
    schedule text not null,
    command text not null,
    nodename text not null default 'localhost',
    nodeport int not null default inet_server_port(),
    database text not null default current_database(),
    username text not null default current_user,
    active boolean not null default true,
    jobname text,
    constraint jobname_username_uniq unique (jobname, username)
);
create table cron.job_run_details (
    jobid bigint, runid bigint primary key default nextval('cron.runid_seq'), job_pid int, database text, username text,
    command text, status text, return_message text, start_time timestamptz, end_time timestamptz
);
create function cron.schedule(job_name text, schedule text, command text) returns bigint language plpgsql as $$
declare
    made bigint;
begin
    if schedule !~* '^\s*([1-9]|[1-5][0-9])\s+seconds?\s*$' and schedule !~* '^\s*[0-9*,/-]+(\s+[0-9*,/-]+){4}\s*$' then
        raise exception using errcode = '22023', message = 'invalid schedule: ' || schedule,
            hint = 'Use cron format (e.g. 5 4 * * *), or interval format ''[1-59] seconds''';
    end if;
    insert into cron.job (jobname, schedule, command) values ($1, $2, $3)
        on conflict on constraint jobname_username_uniq
        do update set schedule = excluded.schedule, command = excluded.command, active = true
        returning jobid into made;
    return made;
end $$;
create function cron.unschedule(job_id bigint) returns boolean language plpgsql as $$
begin
    delete from cron.job where jobid = job_id;
    if not found then
        raise exception using errcode = 'XX000', message = format('could not find valid entry for job %s', job_id);
    end if;
    return true;
end $$;

create schema net;
create unlogged table net.http_request_queue (
    id bigserial, method text not null, url text not null, headers jsonb, body bytea, timeout_milliseconds int not null
);
create unlogged table net._http_response (
    id bigint, status_code int, content_type text, headers jsonb, content text, timed_out boolean, error_msg text,
    created timestamptz not null default now()
);
create function net.http_post(
    url text, body jsonb default '{}', params jsonb default '{}',
    headers jsonb default '{"Content-Type": "application/json"}', timeout_milliseconds int default 5000
) returns bigint language plpgsql as $$
declare
    made bigint;
begin
    insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
        values ('POST', $1, $4, convert_to($2::text, 'UTF8'), $5) returning id into made;
    perform pg_notify('pg_net', '');  -- at commit, and never on rollback
    return made;
end $$;
grant usage on schema net to public;
grant all on all tables in schema net to public;
grant all on all sequences in schema net to public;

create schema vault;
create table vault.secrets (
    id uuid primary key default gen_random_uuid(), name text unique, description text, secret text not null
);
create view vault.decrypted_secrets as
    select id, name, description, secret, secret as decrypted_secret from vault.secrets;
create function vault.create_secret(new_secret text, new_name text default null, new_description text default '')
returns uuid language sql as $$
    insert into vault.secrets (secret, name, description) values ($1, $2, $3) returning id
$$;

-- Database Webhooks: a trigger. Arguments: url, method, headers, params, timeout in milliseconds.
create schema supabase_functions;
create function supabase_functions.http_request() returns trigger language plpgsql security definer
set search_path = supabase_functions as $$
begin
    perform net.http_post(
        tg_argv[0],
        jsonb_build_object(
            'old_record', old, 'record', new, 'type', tg_op, 'table', tg_table_name, 'schema', tg_table_schema),
        coalesce(nullif(tg_argv[3], 'null'), '{}')::jsonb,
        coalesce(nullif(tg_argv[2], 'null'), '{"Content-Type": "application/json"}')::jsonb,
        coalesce(nullif(tg_argv[4], 'null')::int, 1000));
    return new;
end $$;
