-- Everstep's tables and functions, version 2. Applies to any Postgres from 13 on, and again to one that has it.
--
-- One row is one record (a promise, with its task where it has a target). A commit is one statement; what is conditional
-- on a lease locks the holder's row FOR SHARE, so that a take-over and a step of the old holder wait for each other.
-- Functions take and return text, for PostgREST, and tell a conflict as a value. Text never holds NUL: the client escapes
-- it, keeping the order. All ids compare byte by byte: the range of a branch is right in the C collation alone.

create schema if not exists everstep;

create table if not exists everstep.rows (
    id text collate "C" primary key,
    branch text collate "C" not null,
    kind text collate "C" not null,
    state text collate "C" not null,
    rev bigint not null,
    due bigint,
    lease bigint,
    epoch bigint,
    n bigint,
    param text,
    value text,
    timeout_at bigint,
    created_at bigint not null,
    settled_at bigint,
    tags text,
    task text,
    rest text
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);

-- Only rows that somebody must look at, and only roots: a step is in neither.
create index if not exists rows_due on everstep.rows (due, id) where due is not null;
create index if not exists rows_roots on everstep.rows (state, id) where strpos(id, '.') = 0;
create index if not exists rows_schedules on everstep.rows (id) where kind = 'schedule';

-- Which due rows were announced, and when to announce them again. Unlogged: after a crash the bell rings once more.
create unlogged table if not exists everstep.bells (
    id text collate "C" primary key,
    due bigint not null,
    again_at bigint not null
);

create or replace function everstep.version() returns int language sql immutable as 'select 2';

create or replace function everstep.now() returns bigint language sql volatile as
    'select (extract(epoch from clock_timestamp()) * 1000)::bigint';

-- A branch: its row and the rows that name it.
create or replace function everstep.branch(of text) returns setof everstep.rows language sql stable as $$
    select * from everstep.rows where id = of
    union all
    select * from everstep.rows where id > of || '.' and id < of || '/' and branch = of
$$;

-- Any commit: all of it or none. NULL means written; otherwise {"fenced": .., "found": {id: row or null}}.
-- Rows are locked in the order of their ids, so that two commits do not wait for each other, and what is expected is
-- checked by later statements, whose snapshots see what was committed while this one waited.
create or replace function everstep.commit(request text) returns text language plpgsql
-- A request names few rows, which the planner, who cannot see into JSON, takes for a hundred.
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
    asked constant json := request::json;
    fence_id constant text := asked->'fence'->>0;
    fence_version constant bigint := (asked->'fence'->>1)::bigint;
    gone constant text[] := array(select json_array_elements_text(asked->'deletes'));
    touched text[];
    fenced boolean;
    wrong json;
    locked int;
    seen int;
    made text[];
    wanted int;
begin
    if exists (select from json_array_elements(asked->'guards') g where (g->>1)::bigint = 0) then
        -- Nothing can be locked where no row is: commits that ask for an absence take turns.
        perform pg_advisory_xact_lock(hashtextextended(asked->>'origin', 0));
    end if;
    touched := array(
        select p->>'id' from json_array_elements(asked->'puts') p
        union select g->>0 from json_array_elements(asked->'guards') g
        union select unnest(gone)
        union select fence_id where fence_id is not null
    );
    loop
        loop
            select count(*) into locked from (
                select from everstep.rows where id = any (touched) order by id for update) l;
            select count(*) into seen from everstep.rows where id = any (touched);
            exit when seen = locked;
        end loop;
        fenced := fence_id is not null and not exists (
            select from everstep.rows where id = fence_id and lease = fence_version);
        select json_object_agg(w.id, case when r.id is not null then to_json(r) end) into wrong
        from (
            select p->>'id' as id, (p->>'expect')::bigint as expect from json_array_elements(asked->'puts') p
            union all
            select g->>0, (g->>1)::bigint from json_array_elements(asked->'guards') g
        ) w left join everstep.rows r on r.id = w.id
        where coalesce(r.rev, 0) <> w.expect;
        if fenced or wrong is not null then
            return json_build_object('fenced', fenced, 'found', coalesce(wrong, '{}'::json));
        end if;
        with fresh as (
            select * from json_to_recordset(asked->'puts') as p (
                expect bigint, id text, branch text, kind text, state text, rev bigint, due bigint, lease bigint,
                epoch bigint, n bigint, param text, value text, timeout_at bigint, created_at bigint,
                settled_at bigint, tags text, task text, rest text)
            where p.expect = 0 order by p.id collate "C"
        ), written as (
            insert into everstep.rows (id, branch, kind, state, rev, due, lease, epoch, n, param, value, timeout_at,
                created_at, settled_at, tags, task, rest)
            select id, branch, kind, state, rev, due, lease, epoch, n, param, value, timeout_at,
                created_at, settled_at, tags, task, rest from fresh
            on conflict (id) do nothing returning id
        )
        select (select array_agg(id) from written), (select count(*) from fresh) into made, wanted;
        exit when coalesce(cardinality(made), 0) = wanted;
        -- Somebody created one of them while we waited: take ours back, and say so.
        delete from everstep.rows where id = any (made);
    end loop;
    update everstep.rows r set
        branch = p.branch, kind = p.kind, state = p.state, rev = p.rev, due = p.due, lease = p.lease, epoch = p.epoch,
        n = p.n, param = p.param, value = p.value, timeout_at = p.timeout_at, created_at = p.created_at,
        settled_at = p.settled_at, tags = p.tags, task = p.task, rest = p.rest
    from json_to_recordset(asked->'puts') as p (
        expect bigint, id text, branch text, kind text, state text, rev bigint, due bigint, lease bigint,
        epoch bigint, n bigint, param text, value text, timeout_at bigint, created_at bigint,
        settled_at bigint, tags text, task text, rest text)
    where p.expect > 0 and r.id = p.id;
    if cardinality(gone) > 0 then
        delete from everstep.rows where id = any (gone);
    end if;
    return null;
end $$;

-- A search in id order from the cursor on, one row more than a page holds. Tags are tested as text: a row that passes
-- may still be another's, and the client looks again. One ordered read of the roots index for each state asked for.
create or replace function everstep.find(request text) returns setof everstep.rows language plpgsql stable as $$
declare
    asked constant json := request::json;
    most constant int := (asked->>'limit')::int + 1;
    kinds constant text[] := array(select json_array_elements_text(asked->'kinds'));
    states text[] := array(select json_array_elements_text(asked->'states'));
    terms text := '';
begin
    if asked->>'cursor' is not null then terms := terms || ' and id > $1->>''cursor'''; end if;
    if asked->>'prefix' <> '' then
        terms := terms || ' and id >= $1->>''prefix'' and starts_with(id, $1->>''prefix'')';
        if asked->>'after' is not null then terms := terms || ' and id < $1->>''after'''; end if;
    end if;
    terms := terms || case
        when kinds = '{schedule}' then ' and kind = ''schedule'''
        when cardinality(kinds) > 0 then ' and kind = any ($2)'
        else ' and kind <> ''schedule''' end;
    if asked->>'settled_before' is not null then
        terms := terms || ' and settled_at < ($1->>''settled_before'')::bigint';
    end if;
    if (asked->>'roots')::boolean then terms := terms || ' and strpos(id, ''.'') = 0'; end if;
    if json_array_length(asked->'tags') > 0 then
        terms := terms || ' and not exists (select from json_array_elements_text($1->''tags'') t where strpos(coalesce(tags, ''''), t) = 0)';
    end if;
    if cardinality(states) = 0 then
        return query execute 'select * from everstep.rows where true' || terms || ' order by id limit $3'
            using asked, kinds, most;
    else
        return query execute 'select r.* from unnest($4) s, lateral (select * from everstep.rows where state = s'
            || terms || ' order by id limit $3) r order by r.id limit $3'
            using asked, kinds, most, states;
    end if;
end $$;

create or replace function everstep.delete_origin(of text) returns bigint language plpgsql as $$
declare
    one bigint;
    rest bigint;
begin
    delete from everstep.rows where id = of;
    get diagnostics one = row_count;
    delete from everstep.rows where id > of || '.' and id < of || '/';
    get diagnostics rest = row_count;
    return one + rest;
end $$;

-- What a body waits for, as data: an id, or ["any" | "all" | "try", ...].
create or replace function everstep.leaves(tree jsonb) returns setof text language sql immutable as $$
    with recursive part (tree) as (
        select tree
        union all
        select inner_tree from part, jsonb_array_elements(
            case when jsonb_typeof(part.tree) = 'array' then part.tree - 0 else '[]' end) inner_tree
    )
    select distinct part.tree #>> '{}' from part where jsonb_typeof(part.tree) = 'string'
$$;

-- Whether that has come about: `outcome` has each settled id, true where it was resolved. As `satisfied` of the core.
create or replace function everstep.satisfied(tree jsonb, outcome jsonb) returns boolean language plpgsql immutable as $$
declare
    how constant text := case when jsonb_typeof(tree) = 'array' then tree->>0 end;
    parts int;
    met int;
begin
    if how is null then
        return outcome ? (tree #>> '{}');
    elsif how = 'try' and exists (select from everstep.leaves(tree) leaf where outcome->leaf = 'false') then
        return true;
    end if;
    -- A body that waits for thousands waits for one group of them: no call for each leaf.
    select count(*), count(*) filter (where case when jsonb_typeof(part) = 'string' then outcome ? (part #>> '{}')
        else everstep.satisfied(part, outcome) end) from jsonb_array_elements(tree - 0) part into parts, met;
    return case how when 'any' then parts = 0 or met > 0 else met = parts end;
end $$;

-- What an acquisition of this task would deliver, in order; NULL where there is nothing to do, or more to do than this.
-- As `everstep.resuming.inbox_of` of the core, which says why.
create or replace function everstep.inbox(job jsonb, at bigint) returns jsonb language plpgsql stable as $$
declare
    outcome jsonb;
    inbox jsonb;
    overdue boolean;
begin
    with child as (
        select r.id as key, r.state, case when r.state <> 'pending' then coalesce(r.settled_at, at) end as since,
            r.state = 'pending' and r.timeout_at <= at as overdue
        from everstep.rows r
        where r.id = any (array(
                select everstep.leaves(job->'w') union select jsonb_array_elements_text(job->'k'->1)))
            and r.epoch is null and r.kind not in ('step', 'child', 'timer', 'detached', 'fold')
    ), timer as (
        select i->>0 as key, (i->>1)::bigint as since from jsonb_array_elements(job->'i') i
        where (i->>1)::bigint <= at
    ), elsewhere as (
        select f->>0 as key, case when r.state <> 'pending' then r.state
            when strpos(r.tags, '"resonate:timer":"true"') > 0 then 'resolved' else 'rejected_timedout' end as state
        from jsonb_array_elements(job->'f') f join everstep.rows r on r.id = f->>1
        where r.state <> 'pending' or r.timeout_at <= at
    )
    select
        (select jsonb_object_agg(key, state = 'resolved') from (
            select key, state from child where since is not null
            union all select key, state from elsewhere
            union all select key, 'resolved' from timer) o),
        (select jsonb_agg(key order by since, key collate "C") from (
            select key, since from child where since is not null
            union all select key, since from timer where not coalesce(job->'k'->2 ? key, false)) d),
        exists (select from child where child.overdue)
    into outcome, inbox, overdue;
    if overdue or (job ? 'w' and not everstep.satisfied(job->'w', coalesce(outcome, '{}'))) then
        return null;
    end if;
    return coalesce(inbox, '[]');
end $$;

-- A resume in one round trip: take a task that was let go and has something to do, and load.
--
-- What is taken is what the last holder left a plan for, "k": [length of history, [children], [timers]], or what nobody
-- ever held; everything else is only loaded, and the caller decides. The task's row is returned as it was before, with
-- what its acquisition delivers; then what is beside it (all of it, if `warm` is another version than the task's), and
-- what it waits for in other origins. These are several statements on purpose: in a single one the load would keep the
-- snapshot from before the wait for a lock, and miss a step just committed.
drop function if exists everstep.resume(text, text, text, bigint, bigint, text[]);
create or replace function everstep.resume(
    of text, target text, holder text, ttl bigint, at bigint, warm bigint default null, beside text[] default null
) returns table (inbox text, part everstep.rows) language plpgsql as $$
declare
    old everstep.rows;
    job jsonb;
    ours boolean;
    version bigint;
    delivered jsonb;
begin
    select * into old from everstep.rows r where r.id = of;
    -- Escaped characters are not compared with the ids of rows: the caller decides.
    if strpos(old.task, '\u0000') = 0 and strpos(old.task, '\u0001') = 0 and strpos(old.tags, '\u0000') = 0 then
        job := old.task::jsonb;
        ours := old.tags::json->>'resonate:target' = target;
    end if;
    if ours and old.state = 'pending' and (old.timeout_at is null or old.timeout_at > at) and not job ? 'd'
        and (job->>'s' = 'suspended' and job ? 'k'
            or job->>'s' = 'pending' and coalesce((job->>'r')::bigint, at) <= at
                and (job ? 'k' or (job->>'v' = '0' and not job ? 'h')))
    then
        delivered := everstep.inbox(job, at);
        if delivered is not null then
            version := (job->>'v')::bigint + 1;
            update everstep.rows r set
                rev = r.rev + 1, lease = version, due = least(at + ttl, r.timeout_at),
                task = (jsonb_build_object(
                    's', 'acquired', 'v', version, 'p', holder, 't', ttl, 'e', at + ttl,
                    'h', coalesce(job->'h', '[]') || jsonb_build_array(
                        jsonb_build_array(version, coalesce(job->'k'->0, '0'), delivered, at)))
                    || case when job ? 'g' then jsonb_build_object('g', job->'g') else '{}' end
                    || case when job ? 'c' then jsonb_build_object('c', job->'c') else '{}' end)::text
            where r.id = of and r.rev = old.rev;
            if not found then
                delivered := null;
                job := null;
                select * into old from everstep.rows r where r.id = of;
            end if;
        end if;
    end if;
    if old.id is null then
        return;
    end if;
    return query select delivered::text, old;
    if (job->>'v')::bigint = warm then
        return query select null::text, r from everstep.rows r
            where r.id = any (beside || array(select jsonb_array_elements_text(delivered))) and r.id <> of;
    else
        return query select null::text, r from everstep.rows r
            where r.id > of || '.' and r.id < of || '/' and r.branch = of;
    end if;
    if job ? 'f' then
        return query select null::text, r from everstep.rows r
            where r.id = any (array(select f->>1 from jsonb_array_elements(job->'f') f));
    end if;
end $$;

-- The doorbell of one row: whoever listens is told at once, and where pg_net and a URL are set up, the function is.
-- Nothing here is the truth: the due row is, and the bell rings again for it until somebody moves it on.
create or replace function everstep.poke(of text) returns void language plpgsql
-- As its owner: who may ring need not be able to read Vault.
security definer set search_path = pg_catalog, pg_temp as $$
declare
    at constant bigint := everstep.now();
begin
    perform pg_notify('everstep', '');
    if of <> '' and to_regclass('vault.decrypted_secrets') is not null and to_regnamespace('net') is not null then
        insert into everstep.bells (id, due, again_at)
            select r.id, coalesce(r.due, at), at + 30000 from everstep.rows r where r.id = of
            on conflict (id) do update set due = excluded.due, again_at = excluded.again_at;
        perform everstep.post(of);
    end if;
end $$;

create or replace function everstep.post(of text) returns void language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
declare
    place constant text := (select decrypted_secret from vault.decrypted_secrets where name = 'everstep_url');
    secret constant text := (select decrypted_secret from vault.decrypted_secrets where name = 'everstep_secret');
begin
    if place is not null and place <> '' then
        perform net.http_post(
            url := place,
            body := jsonb_build_object('id', of, 'version', 0),
            headers := jsonb_build_object('Content-Type', 'application/json', 'x-everstep-secret', coalesce(secret, '')),
            timeout_milliseconds := 60000);
    end if;
end $$;

-- Called by pg_cron: post for what is due, once for each due instant, and again after a while if that moved nothing.
create or replace function everstep.ring(again bigint default 30000, most int default 100) returns int
language plpgsql as $$
declare
    at constant bigint := everstep.now();
    one record;
    rung int := 0;
begin
    if not pg_try_advisory_xact_lock(7310590841) then
        return 0;
    end if;
    for one in
        select r.id, r.due from everstep.rows r left join everstep.bells b on b.id = r.id
        where r.due <= at and (b.id is null or b.due <> r.due or b.again_at <= at)
        order by r.due, r.id limit most
    loop
        insert into everstep.bells (id, due, again_at) values (one.id, one.due, at + again)
            on conflict (id) do update set due = excluded.due, again_at = excluded.again_at;
        perform everstep.post(one.id);
        rung := rung + 1;
    end loop;
    return rung;
end $$;

-- For pg_cron before 1.5, whose shortest interval is a minute: nothing leaves pg_net before a commit, hence a procedure.
create or replace procedure everstep.ring_for_a_minute(seconds int default 58) language plpgsql as $$
begin
    for turn in 1..seconds loop
        perform everstep.ring();
        commit;
        perform pg_sleep(1);
    end loop;
end $$;

-- What nobody needs any more: settled trees past their retention, old bells, and pg_cron's diary.
create or replace function everstep.purge(most int default 1000) returns bigint language plpgsql as $$
declare
    at constant bigint := everstep.now();
    one record;
    purged bigint := 0;
begin
    -- Roots; and the runs of each schedule, whose ids have a dot, and which share an origin.
    for one in
        select r.id from (
            select r.* from unnest(array['resolved', 'rejected', 'rejected_canceled', 'rejected_timedout']) s,
                lateral (select * from everstep.rows where state = s and strpos(id, '.') = 0) r
            union all
            select r.* from everstep.rows s, lateral (select replace(
                    split_part(s.rest::json->>'id', '{{.timestamp}}', 1), '{{.id}}', substr(s.id, 11)) as ticks) t,
                lateral (select * from everstep.rows where id > split_part(t.ticks, '.', 1) || '.'
                    and id < split_part(t.ticks, '.', 1) || '/' and starts_with(id, t.ticks)) r
            where s.kind = 'schedule' and strpos(t.ticks, '.') > 0 and r.kind = 'root' and r.state <> 'pending'
        ) r
        where r.kind <> 'schedule' and r.tags like '%"everstep:retention":"%'
            and (r.rest is null or (r.rest::json->'c' is null and r.rest::json->'l' is null))
            and r.tags::json->>'everstep:retention' ~ '^[0-9]{1,15}$'
            and r.settled_at + (r.tags::json->>'everstep:retention')::bigint <= at
        limit most
    loop
        purged := purged + everstep.delete_origin(one.id);
    end loop;
    delete from everstep.bells where again_at < at - 3600000;
    if to_regclass('cron.job_run_details') is not null then
        delete from cron.job_run_details where end_time < now() - interval '1 day';
    end if;
    return purged;
end $$;

-- The same for PostgREST, which reaches `public` alone: one function, text in, text out, told apart by "op".
create or replace function public.everstep_rpc(request text) returns text language plpgsql as $$
declare
    asked constant json := request::json;
begin
    case asked->>'op'
        when 'load' then
            return (select coalesce(json_agg(r), '[]') from everstep.rows r
                where r.id = any (array(select json_array_elements_text(asked->'ids'))));
        when 'branch' then
            return (select coalesce(json_agg(r), '[]') from everstep.branch(asked->>'id') r);
        when 'commit' then
            return everstep.commit((asked->'commit')::text);
        when 'resume' then
            return (select coalesce(json_agg(r), '[]') from everstep.resume(
                asked->>'id', asked->>'target', asked->>'holder', (asked->>'ttl')::bigint, (asked->>'at')::bigint,
                (asked->>'warm')::bigint, case when json_typeof(asked->'beside') = 'array'
                    then array(select json_array_elements_text(asked->'beside')) end) r);
        when 'due' then
            return (select coalesce(json_agg(json_build_array(d.id, d.due)), '[]') from (
                select r.id, r.due from everstep.rows r where r.due <= (asked->>'now')::bigint
                order by r.due, r.id limit (asked->>'limit')::int) d);
        when 'find' then
            return (select coalesce(json_agg(r), '[]') from everstep.find((asked->'query')::text) r);
        when 'delete' then
            return everstep.delete_origin(asked->>'origin')::text;
        when 'poke' then
            perform everstep.poke(asked->>'id');
            return 'null';
        when 'version' then
            return everstep.version()::text;
        else
            raise exception using errcode = 'PT400', message = format('everstep_rpc knows no op %L', asked->>'op');
    end case;
end $$;

-- Closed to everybody but the owner. Supabase grants what is new by name, so revoking from public alone is not enough.
do $$
declare
    someone text;
begin
    revoke all on schema everstep from public;
    revoke all on all tables in schema everstep from public;
    revoke all on all routines in schema everstep from public;
    revoke all on function public.everstep_rpc(text) from public;
    foreach someone in array array['anon', 'authenticated'] loop
        if exists (select from pg_roles where rolname = someone) then
            execute format('revoke all on schema everstep from %I', someone);
            execute format('revoke all on all tables in schema everstep from %I', someone);
            execute format('revoke all on all routines in schema everstep from %I', someone);
            execute format('revoke all on function public.everstep_rpc(text) from %I', someone);
        end if;
    end loop;
    if exists (select from pg_roles where rolname = 'service_role') then
        grant usage on schema everstep to service_role;
        grant select, insert, update, delete on all tables in schema everstep to service_role;
        grant execute on all routines in schema everstep to service_role;
        grant execute on function public.everstep_rpc(text) to service_role;
    end if;
end $$;
alter table everstep.rows enable row level security;
alter table everstep.bells enable row level security;

-- pg_cron, where it is: the doorbell every second, the purge every hour. The same names again replace the jobs.
do $$
begin
    if to_regnamespace('cron') is not null and to_regnamespace('net') is not null then
        begin
            perform cron.schedule('everstep', '1 second', 'select everstep.ring()');
        exception when others then
            perform cron.schedule('everstep', '* * * * *', 'call everstep.ring_for_a_minute()');
        end;
        perform cron.schedule('everstep-purge', '17 * * * *', 'select everstep.purge()');
    end if;
end $$;
