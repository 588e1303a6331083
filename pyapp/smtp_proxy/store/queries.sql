-- Every statement the store sends, by name. `queries.py` reads this file; nothing is assembled from strings.
-- $n are asyncpg's parameters. Bounds on envelope ids beside `= ANY` let the planner prune partitions. Wherever bounds stand
-- the ids stand too, or one key: a plan made while a day's tables were empty takes bounds alone for a row or two, and reads
-- all mail between the oldest and the newest id for as long as it is kept; "+ 0" keeps those plans off the small indexes of what is open (docs/decisions/0014). OFFSET 0
-- keeps a LATERAL to lookups by key.

-- name: ping
SELECT 1;

-- name: backend_pid
SELECT pg_backend_pid();

-- name: copy_accepted
-- Many messages, in one write and one answer: a simple query is one transaction. The core writes what follows
-- (core_rs/server/src/copy.rs), so columns change there and here together.
COPY envelopes (id, tenant_id, credential_id, reverse_path, recipient_count, size_bytes, body_type, smtputf8,
    helo, client_address, tls, received_at, dsn_ret, dsn_envid, tls_suite, content) FROM STDIN (FORMAT binary);
COPY deliveries (envelope_id, recipient_number, recipient, sweep_at, dsn_notify, dsn_orcpt, lane) FROM STDIN (FORMAT binary);

-- name: copy_placed
-- Behind copy_accepted, in the same query: deliveries that are held (state 4), or not to leave yet.
COPY deliveries (envelope_id, recipient_number, recipient, sweep_at, dsn_notify, dsn_orcpt, lane, state, next_attempt_at)
    FROM STDIN (FORMAT binary);

-- name: copy_parts
-- Behind the others: the content of messages that are longer than a page.
COPY content_parts (envelope_id, number, content) FROM STDIN (FORMAT binary);

-- name: take_submission_keys
-- Which message each key stands for: the one that is given, unless there is an earlier one that has not expired. Waits for
-- whoever is just accepting the same. $1 credentials, $2 digests, $3 envelopes, $4 seconds
INSERT INTO submission_keys AS known (credential_id, digest, envelope_id, expires_at)
SELECT credential_id, digest, envelope_id, now() + make_interval(secs => seconds)
FROM unnest($1::uuid[], $2::bytea[], $3::uuid[], $4::integer[]) AS made (credential_id, digest, envelope_id, seconds)
ON CONFLICT (credential_id, digest) DO UPDATE
SET envelope_id = CASE WHEN known.expires_at <= now() THEN excluded.envelope_id ELSE known.envelope_id END,
    expires_at = CASE WHEN known.expires_at <= now() THEN excluded.expires_at ELSE known.expires_at END
RETURNING credential_id, digest, envelope_id;

-- name: forget_submission_keys
-- $1 at most
DELETE FROM submission_keys WHERE ctid = ANY (
    ARRAY(SELECT ctid FROM submission_keys WHERE expires_at <= now() ORDER BY expires_at LIMIT $1 FOR UPDATE SKIP LOCKED)
);

-- name: insert_envelopes
-- As copy_accepted, for the few that are stored beside something else. Columns of envelopes in its order
INSERT INTO envelopes (id, tenant_id, credential_id, reverse_path, recipient_count, size_bytes, body_type, smtputf8,
    helo, client_address, tls, received_at, dsn_ret, dsn_envid, tls_suite, content)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::integer[], $6::integer[], $7::smallint[],
    $8::boolean[], $9::text[], $10::text[], $11::boolean[], $12::timestamptz[], $13::smallint[], $14::text[],
    $15::integer[], $16::bytea[]);

-- name: insert_deliveries
INSERT INTO deliveries (envelope_id, recipient_number, recipient, sweep_at, dsn_notify, dsn_orcpt, lane, state,
    next_attempt_at)
SELECT envelope_id, recipient_number, recipient, sweep_at, dsn_notify, dsn_orcpt, lane, state,
    coalesce(next_attempt_at, now())
FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::timestamptz[], $5::smallint[], $6::text[], $7::smallint[],
    $8::smallint[], $9::timestamptz[]) AS made (envelope_id, recipient_number, recipient, sweep_at, dsn_notify, dsn_orcpt,
    lane, state, next_attempt_at);

-- name: idempotent_tenants
SELECT id, idempotency_seconds FROM tenants WHERE idempotency_seconds IS NOT NULL;

-- name: server_facts
-- In the order of store.facts.Facts. reserved_connections is there since Postgres 16.
SELECT current_setting('server_version'), current_setting('max_connections')::int,
    current_setting('superuser_reserved_connections')::int
        + coalesce(current_setting('reserved_connections', true)::int, 0),
    -- Of other roles' sessions no more is shown to us than who they are.
    (SELECT count(*)::int FROM pg_stat_activity WHERE datid IS NOT NULL AND usesysid IS NOT NULL),
    pg_is_in_recovery() OR current_setting('default_transaction_read_only')::bool,
    current_setting('synchronous_commit') <> 'off' AND current_setting('fsync')::bool,
    ARRAY(SELECT relname::text FROM pg_class
        WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT pg_has_role(relowner, 'USAGE')
        ORDER BY relname);

-- name: is_read_only
SHOW transaction_read_only;

-- name: claim
-- Queued and due deliveries of these envelopes become this worker's until the lease ends.
-- $1 ids, $2 lowest id, $3 highest id, $4 worker, $5 lease
WITH due AS (
    SELECT envelope_id, recipient_number
    FROM deliveries
    WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid
        -- "+ 0" keeps the planner off deliveries_to_sweep, which holds the whole backlog (docs/decisions/0014).
        AND state + 0 = 0 AND next_attempt_at <= now()
    FOR UPDATE SKIP LOCKED
)
UPDATE deliveries d
SET state = 1, claimed_by = $4::uuid, sweep_at = now() + $5::interval, waits_for = NULL
FROM due CROSS JOIN LATERAL (
    SELECT tenant_id, credential_id, reverse_path, size_bytes, body_type, smtputf8, received_at, helo, client_address, tls,
        dsn_ret, dsn_envid, tls_suite
    FROM envelopes WHERE id = due.envelope_id AND id BETWEEN $2::uuid AND $3::uuid OFFSET 0
) e
WHERE d.envelope_id = due.envelope_id AND d.recipient_number = due.recipient_number
    AND d.envelope_id = ANY ($1::uuid[]) AND d.envelope_id BETWEEN $2::uuid AND $3::uuid
RETURNING d.envelope_id, d.recipient_number, d.recipient, d.attempt_count, d.dsn_notify, d.dsn_orcpt, d.lane, d.route,
    e.tenant_id, e.credential_id, e.reverse_path, e.size_bytes, e.body_type, e.smtputf8, e.received_at,
    e.helo, e.client_address, e.tls, e.dsn_ret, e.dsn_envid, e.tls_suite, d.replayed_at, d.replayed_attempts,
    d.delay_reported_at IS NOT NULL AS delay_reported,
    -- Where nobody suppresses anything that is asked once, and not for each row. A to Z alone, whatever the database's
    -- locale; other letters are store/suppressions.py's. The second COLLATE is that of the key, by which it is looked up.
    CASE WHEN (SELECT EXISTS (SELECT FROM suppressions)) THEN (
        SELECT s.reason FROM suppressions s WHERE s.tenant_id = e.tenant_id AND s.address = lower(d.recipient COLLATE "C") COLLATE "default"
    ) END AS suppressed;

-- name: contents
-- $1 ids, $2 lowest id, $3 highest id
SELECT id AS envelope_id, content FROM envelopes
WHERE id = ANY ($1::uuid[]) AND id BETWEEN $2::uuid AND $3::uuid AND content IS NOT NULL;

-- name: long_contents
-- Of messages in parts. $1 ids, $2 lowest id, $3 highest id
SELECT envelope_id, string_agg(content, ''::bytea ORDER BY number) AS content FROM content_parts
WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid
GROUP BY envelope_id;

-- name: older_contents
-- Of messages that a release took in which did not know envelopes.content. $1 ids, $2 lowest id, $3 highest id
SELECT envelope_id, content FROM bodies
WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid;

-- name: unclaim
-- Claimed, but too much to hold at once: back to the queue, and to the sweeper now.
-- $1 ids, $2 lowest id, $3 highest id, $4 worker
UPDATE deliveries SET state = 0, claimed_by = NULL, sweep_at = now()
WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid AND state + 0 = 1 AND claimed_by = $4::uuid
RETURNING envelope_id;

-- name: renew
-- What a worker has in hand: of each message whether all of it was renewed, or others hold a row of it just now. Those are
-- left alone, since to wait for them in another order would be a deadlock; they are counted as of when this began, so what
-- was recorded meanwhile is among them. What is this worker's no longer is not there.
-- $1 ids, $2 lowest id, $3 highest id, $4 worker, $5 lease
WITH held AS (
    SELECT envelope_id FROM deliveries
    WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid AND state + 0 = 1 AND claimed_by = $4::uuid
), free AS (
    SELECT envelope_id, recipient_number FROM deliveries
    WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid AND state + 0 = 1 AND claimed_by = $4::uuid
    FOR NO KEY UPDATE SKIP LOCKED
), renewed AS (
    UPDATE deliveries d SET sweep_at = now() + $5::interval
    FROM free
    WHERE d.envelope_id = free.envelope_id AND d.recipient_number = free.recipient_number
        AND d.envelope_id = ANY ($1::uuid[]) AND d.envelope_id BETWEEN $2::uuid AND $3::uuid
    RETURNING d.envelope_id
)
-- Counted, since a plan for empty tables would compare each row of a join with each other.
SELECT envelope_id, count(*) FILTER (WHERE was_renewed) = count(*) FILTER (WHERE NOT was_renewed) AS whole
FROM (SELECT envelope_id, false AS was_renewed FROM held UNION ALL SELECT envelope_id, true FROM renewed) rows
GROUP BY envelope_id;

-- name: release
-- Whatever is under that id. The bound on sweep_at keeps this to what is due or in flight: a million deferred ones lie
-- further ahead in the index. $1 worker, $2 longest lease
UPDATE deliveries SET state = 0, claimed_by = NULL, sweep_at = now()
WHERE state = 1 AND claimed_by = $1::uuid AND sweep_at <= now() + $2::interval
RETURNING envelope_id, lane;

-- name: record
-- Attempts and what they did to their deliveries, where the claim still holds (fencing). What a delivery waited for was
-- left by a claim of the release before.
-- $1-$11 columns of attempts, $12 next_attempt_at (null: settled), $13 new states, $14 lowest id, $15 highest id, $16 kinds
WITH made AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::smallint[], $3::smallint[], $4::smallint[], $5::smallint[], $6::text[], $7::text[], $8::text[],
        $9::uuid[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::smallint[], $16::smallint[]
    ) AS t (envelope_id, recipient_number, attempt_number, outcome, reply_code, enhanced_code, reply_text, remote,
        worker_id, started_at, finished_at, next_attempt_at, state, kind)
), settled AS (
    UPDATE deliveries d
    -- Of unknown outcome: held where the tenant wants that. Looked up for such an attempt alone.
    SET state = CASE WHEN made.outcome = 4 AND made.state = 0 AND (
            SELECT t.on_unknown <> 'retry' FROM envelopes e JOIN tenants t ON t.id = e.tenant_id
            WHERE e.id = made.envelope_id AND e.id BETWEEN $14::uuid AND $15::uuid
        ) THEN 4 ELSE made.state END,
        attempt_count = made.attempt_number,
        claimed_by = NULL,
        waits_for = NULL,
        next_attempt_at = coalesce(made.next_attempt_at, d.next_attempt_at),
        sweep_at = coalesce(made.next_attempt_at, made.finished_at),
        finished_at = CASE WHEN made.state IN (2, 3) THEN made.finished_at END
    FROM made
    WHERE d.envelope_id = made.envelope_id AND d.recipient_number = made.recipient_number
        AND d.envelope_id = ANY ($1::uuid[]) AND d.envelope_id BETWEEN $14::uuid AND $15::uuid
        AND d.state + 0 = 1 AND d.claimed_by = made.worker_id AND d.attempt_count = made.attempt_number - 1
    RETURNING made.*
)
INSERT INTO attempts (envelope_id, recipient_number, attempt_number, outcome, reply_code, enhanced_code, reply_text,
    remote, worker_id, started_at, finished_at, kind)
SELECT envelope_id, recipient_number, attempt_number, outcome, reply_code, enhanced_code, reply_text,
    remote, worker_id, started_at, finished_at, kind
FROM settled
ON CONFLICT (envelope_id, recipient_number, attempt_number) DO UPDATE
SET outcome = excluded.outcome, reply_code = excluded.reply_code, enhanced_code = excluded.enhanced_code,
    reply_text = excluded.reply_text, remote = excluded.remote, worker_id = excluded.worker_id,
    started_at = excluded.started_at, finished_at = excluded.finished_at, kind = excluded.kind
WHERE attempts.outcome = 4 AND attempts.finished_at IS NULL;

-- name: set_aside
-- Claimed, and can not be read: looked at again in a while. $1 ids, $2 lowest id, $3 highest id, $4 worker, $5 why
UPDATE deliveries
SET state = 0, claimed_by = NULL, waits_for = $5::text, next_attempt_at = now() + interval '5 minutes', sweep_at = now() + interval '5 minutes'
WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid AND state + 0 = 1 AND claimed_by = $4::uuid;

-- name: postpone
-- Claimed, and their next hop is busy: queued again, due later; no attempt. Where the claim still holds.
-- $1 ids, $2 recipient numbers, $3 workers, $4 next_attempt_at, $5 lowest id, $6 highest id, $7 why
UPDATE deliveries d
SET state = 0, claimed_by = NULL, next_attempt_at = made.due_at, sweep_at = made.due_at, waits_for = nullif(made.why, '')
FROM unnest($1::uuid[], $2::smallint[], $3::uuid[], $4::timestamptz[], $7::text[])
    AS made (envelope_id, recipient_number, worker_id, due_at, why)
WHERE d.envelope_id = made.envelope_id AND d.recipient_number = made.recipient_number
    AND d.envelope_id = ANY ($1::uuid[]) AND d.envelope_id BETWEEN $5::uuid AND $6::uuid
    AND d.state + 0 = 1 AND d.claimed_by = made.worker_id
RETURNING d.envelope_id, d.recipient_number;

-- name: sending
-- Attempts that are about to send for good, where the claim still holds; returns those. What is only told of (its tenant
-- sends again anyway) need not wait for the disk: the record behind it does. set_config lasts as long as the transaction.
-- $1 ids, $2 recipient numbers, $3 attempt numbers, $4 workers, $5 began, $6 remotes, $7 lowest id, $8 highest id, $9 tenants
WITH written AS (
    INSERT INTO attempts (envelope_id, recipient_number, attempt_number, outcome, reply_code, enhanced_code, reply_text,
        remote, worker_id, started_at)
    SELECT made.envelope_id, made.recipient_number, made.attempt_number, 4, 0, '', 'sent, and no answer was recorded',
        made.remote, made.worker_id, made.started_at
    FROM unnest($1::uuid[], $2::smallint[], $3::smallint[], $4::uuid[], $5::timestamptz[], $6::text[])
        AS made (envelope_id, recipient_number, attempt_number, worker_id, started_at, remote)
    JOIN deliveries d ON d.envelope_id = made.envelope_id AND d.recipient_number = made.recipient_number
        AND d.envelope_id = ANY ($1::uuid[]) AND d.envelope_id BETWEEN $7::uuid AND $8::uuid
    WHERE d.state + 0 = 1 AND d.claimed_by = made.worker_id AND d.attempt_count = made.attempt_number - 1
        AND d.sweep_at > now()
    ON CONFLICT (envelope_id, recipient_number, attempt_number) DO UPDATE
    SET remote = excluded.remote, worker_id = excluded.worker_id, started_at = excluded.started_at
    WHERE attempts.outcome = 4 AND attempts.finished_at IS NULL
    RETURNING envelope_id, recipient_number
)
SELECT envelope_id, recipient_number, (
    SELECT set_config('synchronous_commit', CASE
        WHEN EXISTS (SELECT FROM tenants WHERE id = ANY ($9::uuid[]) AND on_unknown <> 'retry')
        THEN current_setting('synchronous_commit') ELSE 'off' END, true)
) AS durability
FROM written;

-- name: settled_unknown
-- How many of these messages' attempts were found to be of unknown outcome just now. $1 ids, $2 lowest id, $3 highest id
SELECT count(*) FROM attempts
WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid
    AND outcome = 4 AND finished_at > now() - interval '10 seconds';

-- name: recorded
-- Which of these attempts stand recorded as they are given. $1 ids, $2 recipients' numbers, $3 attempts' numbers, $4 workers,
-- $5 finished at, $6 lowest id, $7 highest id
SELECT a.envelope_id, a.recipient_number
FROM unnest($1::uuid[], $2::smallint[], $3::smallint[], $4::uuid[], $5::timestamptz[])
    AS t (envelope_id, recipient_number, attempt_number, worker_id, finished_at)
JOIN attempts a ON a.envelope_id = t.envelope_id AND a.recipient_number = t.recipient_number
    AND a.attempt_number = t.attempt_number
WHERE a.worker_id = t.worker_id AND a.finished_at = t.finished_at
    AND a.envelope_id = ANY ($1::uuid[]) AND a.envelope_id BETWEEN $6::uuid AND $7::uuid;

-- name: tell_delay
-- The sender hears of a delay once. $1 ids, $2 recipients' numbers, $3 lowest id, $4 highest id
UPDATE deliveries d SET delay_reported_at = now()
FROM unnest($1::uuid[], $2::smallint[]) AS t (envelope_id, recipient_number)
WHERE d.envelope_id = t.envelope_id AND d.recipient_number = t.recipient_number
    AND d.envelope_id = ANY ($1::uuid[]) AND d.envelope_id BETWEEN $3::uuid AND $4::uuid AND d.delay_reported_at IS NULL
RETURNING d.envelope_id, d.recipient_number;

-- name: add_report
-- An envelope of our own with one recipient. $1-$11 columns of envelopes, $12 recipient, $13 sweep after, $14 NOTIFY,
-- $15 lane
WITH made AS (
    INSERT INTO envelopes (id, tenant_id, credential_id, reverse_path, recipient_count, size_bytes, body_type, smtputf8,
        helo, client_address, tls, received_at, content)
    VALUES ($1::uuid, $2, $3, $4, 1, $5, $6, $7, $8, $9, false, $10, $11)
    ON CONFLICT DO NOTHING
    RETURNING id
)
INSERT INTO deliveries (envelope_id, recipient_number, recipient, sweep_at, dsn_notify, lane)
SELECT id, 0, $12::text, now() + $13::interval, $14::smallint, $15::smallint FROM made;

-- name: suppression_reasons
-- $1 tenants, $2 an address of each
SELECT s.tenant_id, s.address, s.reason
FROM (SELECT DISTINCT * FROM unnest($1::uuid[], $2::text[]) AS t (tenant_id, address)) wanted
JOIN suppressions s ON s.tenant_id = wanted.tenant_id AND s.address = wanted.address;

-- name: add_suppressions
-- $1 tenant, $2 addresses as model.mailbox says them, $3 reason, $4 whose refusal it was or null
INSERT INTO suppressions (tenant_id, address, reason, envelope_id)
SELECT tenants.id, t.address, $3::text, $4::uuid FROM tenants CROSS JOIN unnest($2::text[]) AS t (address)
WHERE tenants.id = $1::uuid
ON CONFLICT DO NOTHING
RETURNING address;

-- name: remove_suppressions
-- $1 tenant, $2 addresses in all their spellings
DELETE FROM suppressions WHERE tenant_id = $1::uuid AND address = ANY ($2::text[]) RETURNING address;

-- name: list_suppressions
-- $1 tenant, $2 after this address, $3 limit, $4 the spellings of one address alone or null
SELECT address, reason, envelope_id, created_at FROM suppressions
WHERE tenant_id = $1::uuid AND address > $2::text AND ($4::text[] IS NULL OR address = ANY ($4::text[]))
ORDER BY address LIMIT $3;

-- name: tenant_policies
-- Of tenants that want anything else than the rest.
SELECT id, on_unknown, idempotency_seconds, max_age_seconds, reports, suppress_hard_bounces, lane FROM tenants
WHERE on_unknown <> 'retry' OR idempotency_seconds IS NOT NULL OR max_age_seconds IS NOT NULL OR reports <> 'all'
    OR suppress_hard_bounces OR lane <> 0;

-- name: dead_until
-- With which message the next so many dead letters end, newest first. $1 before this id, $2 how many
SELECT envelope_id FROM (
    SELECT envelope_id FROM deliveries WHERE state = 3 AND envelope_id < $1::uuid ORDER BY envelope_id DESC LIMIT $2
) found
ORDER BY envelope_id LIMIT 1;

-- name: dead_letters
-- Newest first. The subqueries are lookups by key for each row of deliveries_dead between the two ids. $1 tenant or null,
-- $2 kind of the last attempt or null, $3 before this message, $4 from this message on
SELECT d.envelope_id, d.recipient_number, d.recipient, d.attempt_count, d.finished_at, e.tenant_id, e.reverse_path,
    coalesce(a.kind, 0) AS kind, coalesce(a.reply_code, 0) AS reply_code, coalesce(a.enhanced_code, '') AS enhanced_code,
    coalesce(a.reply_text, '') AS reply_text
FROM deliveries d
CROSS JOIN LATERAL (SELECT tenant_id, reverse_path FROM envelopes WHERE id = d.envelope_id OFFSET 0) e
LEFT JOIN LATERAL (
    SELECT kind, reply_code, enhanced_code, reply_text FROM attempts
    WHERE envelope_id = d.envelope_id AND recipient_number = d.recipient_number
    ORDER BY attempt_number DESC LIMIT 1
) a ON true
WHERE d.state = 3 AND d.envelope_id < $3::uuid AND d.envelope_id >= $4::uuid
    AND ($1::uuid IS NULL OR e.tenant_id = $1) AND ($2::smallint IS NULL OR a.kind = $2)
ORDER BY d.envelope_id DESC, d.recipient_number;

-- name: dead_recipients
-- $1 ids, $2 lowest id, $3 highest id
SELECT DISTINCT recipient FROM deliveries
WHERE state + 0 = 3 AND envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid;

-- name: replay
-- $1 ids, $2 lowest id, $3 highest id, $4 only these recipients, as they stand there, or null
UPDATE deliveries d
SET state = 0, next_attempt_at = now(), sweep_at = now(), finished_at = NULL, claimed_by = NULL,
    replayed_at = now(), replayed_attempts = attempt_count, delay_reported_at = NULL
WHERE d.state = 3 AND d.envelope_id = ANY ($1::uuid[]) AND d.envelope_id BETWEEN $2::uuid AND $3::uuid
    AND ($4::text[] IS NULL OR d.recipient = ANY ($4))
    AND (EXISTS (SELECT FROM envelopes e WHERE e.id = d.envelope_id AND e.content IS NOT NULL)
        OR EXISTS (SELECT FROM content_parts p WHERE p.envelope_id = d.envelope_id)
        OR EXISTS (SELECT FROM bodies b WHERE b.envelope_id = d.envelope_id))
RETURNING d.envelope_id, d.recipient_number;

-- name: sweep
-- Due and not taken, or taken and the lease has run out: queued, and not looked at again for a while. Of one lane.
-- A lane that this release does not know goes with what is transactional, as in model.Lane. Both conditions are said as
-- deliveries_by_lane says them. The limit does not part a message's recipients, who share a transaction and a report: the
-- others are found by the key of each message, and their state is said as no index of what is due says it, since that
-- would read the whole backlog. A quarter is what became due last: new mail that the stream has lost does not wait for an old
-- backlog.
-- $1 limit, $2 sweep after, $3 lane
WITH oldest AS (
    SELECT envelope_id, recipient_number, state = 1 AS was_taken
    FROM deliveries
    WHERE CASE lane WHEN 1 THEN 1 ELSE 0 END = $3 AND 0 + state < 2 AND sweep_at <= now()
    ORDER BY sweep_at
    LIMIT $1::integer - $1::integer / 4
    FOR UPDATE SKIP LOCKED
), newest AS (
    SELECT envelope_id, recipient_number, state = 1 AS was_taken
    FROM deliveries
    WHERE CASE lane WHEN 1 THEN 1 ELSE 0 END = $3 AND 0 + state < 2 AND sweep_at <= now()
    ORDER BY sweep_at DESC
    LIMIT $1::integer / 4
    FOR UPDATE SKIP LOCKED
), first AS (
    SELECT * FROM oldest UNION SELECT * FROM newest
), due AS (
    SELECT envelope_id, recipient_number, was_taken FROM first
    UNION ALL
    SELECT others.envelope_id, others.recipient_number, others.was_taken
    FROM (SELECT DISTINCT envelope_id FROM first) f
    CROSS JOIN LATERAL (
        SELECT o.envelope_id, o.recipient_number, o.state = 1 AS was_taken
        FROM deliveries o
        WHERE o.envelope_id = f.envelope_id
            AND CASE o.lane WHEN 1 THEN 1 ELSE 0 END = $3 AND o.state + 0 < 2 AND o.sweep_at <= now()
            AND (o.envelope_id, o.recipient_number) NOT IN (SELECT envelope_id, recipient_number FROM first)
        FOR UPDATE SKIP LOCKED
    ) others
)
UPDATE deliveries d
SET state = 0, claimed_by = NULL, sweep_at = now() + $2::interval
FROM due
WHERE d.envelope_id = due.envelope_id AND d.recipient_number = due.recipient_number
    AND d.envelope_id = ANY (ARRAY(SELECT envelope_id FROM due))
RETURNING d.envelope_id, due.was_taken;

-- name: release_named
-- Those of these messages that are held become due, and have their time anew, as with replay: the time for which they
-- were held is none in which they were tried. $1 ids, $2 lowest id, $3 highest id
UPDATE deliveries
SET state = 0, next_attempt_at = now(), sweep_at = now(),
    replayed_at = now(), replayed_attempts = attempt_count, delay_reported_at = NULL
WHERE state = 4 AND envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid
RETURNING envelope_id, recipient_number;

-- name: hold_named
-- Those of these messages that wait in the queue stay until they are released. $1 ids, $2 lowest id, $3 highest id
UPDATE deliveries SET state = 4
WHERE state + 0 = 0 AND envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid
RETURNING envelope_id, recipient_number;

-- name: cancel_named
-- Those of these messages that wait or are held are never delivered. $1 ids, $2 lowest id, $3 highest id
UPDATE deliveries SET state = 5, finished_at = now()
WHERE state + 0 IN (0, 4) AND envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid
RETURNING envelope_id, recipient_number;

-- name: in_hand
-- How many messages a worker has in hand; as release, this reads what is due or in flight, and the envelope by key of each.
-- $1 longest lease, $2 tenant or null, $3 ids or null
SELECT count(*)
FROM (
    SELECT DISTINCT envelope_id FROM deliveries
    WHERE state = 1 AND sweep_at <= now() + $1::interval AND ($3::uuid[] IS NULL OR envelope_id = ANY ($3))
) d
WHERE $2::uuid IS NULL OR $2::uuid = (SELECT e.tenant_id FROM envelopes e WHERE e.id = d.envelope_id);

-- name: waiting_recipients
-- $1 ids, $2 lowest id, $3 highest id, $4 states
SELECT DISTINCT recipient FROM deliveries
WHERE state + 0 = ANY ($4::smallint[]) AND envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid;

-- name: reroute
-- Those of these messages that wait go by another route. What was tried is due now; what waits for its tenant's rate, or is
-- held, waits on. $1 ids, $2 lowest id, $3 highest id, $4 route or null, $5 states, $6 only what was tried, $7 only to
-- these, as they stand there, or null
UPDATE deliveries d
SET route = $4::text,
    next_attempt_at = CASE WHEN state + 0 = 0 AND attempt_count > 0 THEN now() ELSE next_attempt_at END,
    sweep_at = CASE WHEN state + 0 = 0 AND attempt_count > 0 THEN now() ELSE sweep_at END
WHERE state + 0 = ANY ($5::smallint[]) AND envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid
    AND (attempt_count > 0 OR NOT $6::boolean)
    AND ($7::text[] IS NULL OR recipient = ANY ($7))
RETURNING envelope_id, recipient_number;

-- name: messages_of_tenant
-- Oldest first. $1 tenant, $2 after this id, $3 before this id, $4 how many
SELECT id FROM envelopes WHERE tenant_id = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4;

-- name: held_until
-- With which message the next so many held deliveries end, oldest first. $1 after this id, $2 before this id, $3 how many
SELECT envelope_id FROM (
    SELECT envelope_id FROM deliveries
    WHERE state = 4 AND envelope_id > $1::uuid AND envelope_id < $2::uuid ORDER BY envelope_id LIMIT $3
) held
ORDER BY envelope_id DESC LIMIT 1;

-- name: release_held
-- As release_named. The subquery is a lookup by key for each: as EXISTS or a join, all mail of the tenant might be read instead.
-- $1 after this id, $2 up to this id, $3 tenant or null
UPDATE deliveries d
SET state = 0, next_attempt_at = now(), sweep_at = now(),
    replayed_at = now(), replayed_attempts = attempt_count, delay_reported_at = NULL
WHERE d.state = 4 AND d.envelope_id > $1::uuid AND d.envelope_id <= $2::uuid
    AND ($3::uuid IS NULL OR $3::uuid = (SELECT e.tenant_id FROM envelopes e WHERE e.id = d.envelope_id))
RETURNING d.envelope_id, d.recipient_number;

-- name: held_by_tenant
-- What is held, of each tenant; as much as is held is read, and no more: OFFSET 0 keeps it to lookups by key.
SELECT e.tenant_id, count(*) AS messages, sum(e.size_bytes)::bigint AS bytes
FROM (SELECT DISTINCT envelope_id FROM deliveries WHERE state = 4) d
CROSS JOIN LATERAL (SELECT tenant_id, size_bytes FROM envelopes WHERE id = d.envelope_id OFFSET 0) e
GROUP BY e.tenant_id;

-- name: depth
-- Ready rows have a sweep_at of at most one sweep period ahead, so the scan leaves deferred ones alone.
-- $1 sweep after, $2 count no further
SELECT count(*) FROM (
    SELECT FROM deliveries WHERE state = 0 AND sweep_at <= now() + $1::interval AND next_attempt_at <= now() LIMIT $2
) ready;

-- name: backlog_age
-- As depth, and as dear. $1 sweep after, $2 look at no more
SELECT coalesce(extract(epoch FROM now() - min(next_attempt_at)), 0)::float8 FROM (
    SELECT next_attempt_at FROM deliveries
    WHERE state = 0 AND sweep_at <= now() + $1::interval AND next_attempt_at <= now() LIMIT $2
) ready;

-- name: create_tenant
INSERT INTO tenants (id, name) VALUES ($1, $2)
RETURNING id, name, created_at, disabled_at, messages_per_minute, recipients_per_minute, max_sessions, at_limit;

-- name: list_tenants
SELECT id, name, created_at, disabled_at, messages_per_minute, recipients_per_minute, max_sessions, at_limit
FROM tenants ORDER BY name;

-- name: tenant_by_name
SELECT id, name, created_at, disabled_at, messages_per_minute, recipients_per_minute, max_sessions, at_limit
FROM tenants WHERE name = $1;

-- name: limited_tenants
SELECT id, name, created_at, disabled_at, messages_per_minute, recipients_per_minute, max_sessions, at_limit
FROM tenants
WHERE messages_per_minute IS NOT NULL OR recipients_per_minute IS NOT NULL OR max_sessions IS NOT NULL;

-- name: set_tenant_limits
UPDATE tenants SET messages_per_minute = $2, recipients_per_minute = $3, max_sessions = $4, at_limit = $5 WHERE name = $1
RETURNING id, name, created_at, disabled_at, messages_per_minute, recipients_per_minute, max_sessions, at_limit;

-- name: tenant_policy
SELECT on_unknown, idempotency_seconds, max_age_seconds, reports, suppress_hard_bounces, lane FROM tenants WHERE name = $1;

-- name: set_tenant_policy
UPDATE tenants SET on_unknown = $2, idempotency_seconds = $3, max_age_seconds = $4, reports = $5, suppress_hard_bounces = $6,
    lane = $7
WHERE name = $1
RETURNING on_unknown, idempotency_seconds, max_age_seconds, reports, suppress_hard_bounces, lane;

-- name: lanes
-- Of tenants and credentials, as far as they have one of their own.
SELECT id, lane FROM tenants WHERE lane <> 0 UNION ALL SELECT id, lane FROM credentials WHERE lane IS NOT NULL;

-- name: create_credential
INSERT INTO credentials (id, tenant_id, username, password_hash, allowed_senders, allowed_networks)
VALUES ($1, $2, $3, $4, $5, $6)
RETURNING id, tenant_id, username, password_hash, created_at, disabled_at, allowed_senders, allowed_networks, lane;

-- name: list_credentials
SELECT id, tenant_id, username, password_hash, created_at, disabled_at, allowed_senders, allowed_networks, lane FROM credentials
WHERE $1::uuid IS NULL OR tenant_id = $1 ORDER BY username;

-- name: credential_by_username
-- Of a disabled tenant every credential counts as disabled.
SELECT c.id, c.tenant_id, c.username, c.password_hash, c.created_at, coalesce(c.disabled_at, t.disabled_at) AS disabled_at,
    c.allowed_senders, c.allowed_networks, c.lane
FROM credentials c JOIN tenants t ON t.id = c.tenant_id WHERE c.username = $1;

-- name: disable_credential
UPDATE credentials SET disabled_at = coalesce(disabled_at, now()) WHERE username = $1
RETURNING id, tenant_id, username, password_hash, created_at, disabled_at, allowed_senders, allowed_networks, lane;

-- name: enable_credential
UPDATE credentials SET disabled_at = NULL WHERE username = $1
RETURNING id, tenant_id, username, password_hash, created_at, disabled_at, allowed_senders, allowed_networks, lane;

-- name: set_password_hash
UPDATE credentials SET password_hash = $2 WHERE username = $1
RETURNING id, tenant_id, username, password_hash, created_at, disabled_at, allowed_senders, allowed_networks, lane;

-- name: set_allowed_senders
UPDATE credentials SET allowed_senders = $2 WHERE username = $1
RETURNING id, tenant_id, username, password_hash, created_at, disabled_at, allowed_senders, allowed_networks, lane;

-- name: set_credential_lane
UPDATE credentials SET lane = $2 WHERE username = $1
RETURNING id, tenant_id, username, password_hash, created_at, disabled_at, allowed_senders, allowed_networks, lane;

-- name: create_api_key
-- $1 id, $2 tenant's name, $3 name, $4 digest, $5 scopes, $6 now, $7 when it ends or null
INSERT INTO api_keys AS k (id, tenant_id, name, digest, scopes, created_at, expires_at)
SELECT $1::uuid, t.id, $3::text, $4::bytea, $5::text[], $6::timestamptz, $7::timestamptz FROM tenants t WHERE t.name = $2::text
RETURNING k.id, k.tenant_id, $2::text AS tenant, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at, k.last_used_at;

-- name: list_api_keys
-- $1 tenant or null
SELECT k.id, k.tenant_id, t.name AS tenant, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at, k.last_used_at,
    t.disabled_at IS NOT NULL AS tenant_disabled
FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
WHERE $1::uuid IS NULL OR k.tenant_id = $1::uuid ORDER BY t.name, k.name, k.id;

-- name: api_key_by_digest
SELECT k.id, k.tenant_id, t.name AS tenant, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at, k.last_used_at,
    t.disabled_at IS NOT NULL AS tenant_disabled
FROM api_keys k JOIN tenants t ON t.id = k.tenant_id WHERE k.digest = $1::bytea;

-- name: revoke_api_key
-- $1 tenant's name, $2 name, $3 now
UPDATE api_keys k SET revoked_at = $3::timestamptz FROM tenants t
WHERE t.id = k.tenant_id AND t.name = $1::text AND k.name = $2::text AND k.revoked_at IS NULL
RETURNING k.id, k.tenant_id, t.name AS tenant, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at, k.last_used_at,
    t.disabled_at IS NOT NULL AS tenant_disabled;

-- name: note_api_key_used
-- $1 id, $2 now
UPDATE api_keys SET last_used_at = $2::timestamptz WHERE id = $1::uuid;

-- name: add_certificate
INSERT INTO credential_certificates (identity, credential_id) SELECT $2, id FROM credentials WHERE username = $1
RETURNING identity, $1::text AS username, created_at;

-- name: remove_certificate
DELETE FROM credential_certificates i USING credentials c
WHERE c.id = i.credential_id AND c.username = $1 AND i.identity = $2
RETURNING i.identity;

-- name: list_certificates
SELECT i.identity, c.username, i.created_at FROM credential_certificates i JOIN credentials c ON c.id = i.credential_id
WHERE $1::text IS NULL OR c.username = $1 ORDER BY c.username, i.identity;

-- name: usernames_by_certificate
SELECT i.identity, c.username FROM credential_certificates i JOIN credentials c ON c.id = i.credential_id
WHERE i.identity = ANY ($1::text[]);

-- name: set_allowed_networks
UPDATE credentials SET allowed_networks = $2 WHERE username = $1
RETURNING id, tenant_id, username, password_hash, created_at, disabled_at, allowed_senders, allowed_networks, lane;

-- name: add_domain
INSERT INTO domains (id, tenant_id, name) VALUES ($1, $2, $3) RETURNING id, tenant_id, name, created_at;

-- name: list_domains
-- $1 tenant or null, $2 name or null
SELECT id, tenant_id, name, created_at FROM domains
WHERE ($1::uuid IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR name = $2) ORDER BY name, tenant_id;

-- name: list_domain_keys
-- $1 domains
SELECT id, domain_id, selector, algorithm, public_key, sealed_key, secret_key_id, created_at, signs_from, signs_until
FROM domain_keys WHERE domain_id = ANY ($1::uuid[]) ORDER BY signs_from, algorithm, id;

-- name: add_domain_key
INSERT INTO domain_keys (id, domain_id, selector, algorithm, public_key, sealed_key, secret_key_id, created_at, signs_from)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: end_domain_keys
UPDATE domain_keys SET signs_until = $2 WHERE domain_id = $1 AND coalesce(signs_until, 'infinity') > $2;

-- name: forget_domain_keys
DELETE FROM domain_keys WHERE domain_id = $1 AND signs_until < $2;

-- name: remove_domain
DELETE FROM domains WHERE id = $1 RETURNING id;

-- name: reseal_domain_key
-- $1 key, $2 what it has now, $3 the id of the key it is sealed with anew, $4 what is sealed
UPDATE domain_keys SET secret_key_id = $3, sealed_key = $4 WHERE id = $1 AND sealed_key = $2 RETURNING id;

-- name: add_webhook
INSERT INTO webhooks (id, tenant_id, url, events, sealed_secret, secret_key_id, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: list_webhooks
-- $1 tenant or null
SELECT id, tenant_id, url, events, sealed_secret, secret_key_id, created_at, disabled_at, failing_since,
    failures, paused_until, last_error, enabled_at
FROM webhooks WHERE $1::uuid IS NULL OR tenant_id = $1 ORDER BY created_at, id;

-- name: remove_webhook
DELETE FROM webhooks WHERE id = $1 RETURNING id;

-- name: remove_webhook_events
-- Some of what waits, by its index. What was told or given up, which may be much, goes with its day. $1 webhook, $2 how many
DELETE FROM webhook_events v
USING (
    SELECT envelope_id, webhook_id, recipient_number, attempt_number FROM webhook_events
    WHERE webhook_id = $1 AND state = 0 LIMIT $2
) gone
WHERE v.envelope_id = gone.envelope_id AND v.webhook_id = gone.webhook_id
    AND v.recipient_number = gone.recipient_number AND v.attempt_number = gone.attempt_number;

-- name: reseal_webhook
-- $1 webhook, $2 what it has now, $3 the id of the key it is sealed with anew, $4 what is sealed
UPDATE webhooks SET secret_key_id = $3, sealed_secret = $4 WHERE id = $1 AND sealed_secret = $2 RETURNING id;

-- name: judge_webhook
-- $7 only if it fares as it did: with failures $8 since $9
UPDATE webhooks SET failing_since = $2, failures = $3, paused_until = $4, disabled_at = $5, last_error = $6
WHERE id = $1 AND (NOT $7::boolean OR (failures = $8 AND failing_since IS NOT DISTINCT FROM $9::timestamptz))
RETURNING id;

-- name: enable_webhook
-- Well, as far as anybody knows; what waits for it has its whole time anew.
UPDATE webhooks
SET failing_since = NULL, failures = 0, paused_until = NULL, disabled_at = NULL, last_error = '', enabled_at = now()
WHERE id = $1 RETURNING id;

-- name: any_webhooks
SELECT EXISTS (SELECT FROM webhooks WHERE disabled_at IS NULL);

-- name: webhooks_to_call
SELECT id, tenant_id, url, events, sealed_secret, secret_key_id, created_at, disabled_at, failing_since,
    failures, paused_until, last_error, enabled_at
FROM webhooks w
WHERE disabled_at IS NULL AND coalesce(paused_until, '-infinity') <= now()
    AND EXISTS (SELECT FROM webhook_events v WHERE v.webhook_id = w.id AND v.state = 0 AND v.due_at <= now());

-- name: due_events
-- Of a message whose earlier event waits, none is told. $1 webhook, $2 at most
SELECT envelope_id, webhook_id, recipient_number, attempt_number, sequence, event, occurred_at, payload, tries,
    replayed_at
FROM webhook_events v
WHERE webhook_id = $1 AND state = 0 AND due_at <= now() AND NOT EXISTS (
    SELECT FROM webhook_events earlier
    WHERE earlier.envelope_id = v.envelope_id AND earlier.webhook_id = v.webhook_id AND earlier.state = 0
        AND earlier.sequence < v.sequence
)
ORDER BY due_at, sequence LIMIT $2;

-- name: settle_events
-- Only what still waits, found by key and not by the index of all that waits ("+ 0", docs/decisions/0014): a leader that
-- lost the lead may come late, with what another has settled since.
-- $1-$4 keys, $5 states, $6 due again at (null: not), $7 errors
WITH told AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::uuid[], $3::smallint[], $4::smallint[], $5::smallint[], $6::timestamptz[], $7::text[]
    ) AS t (envelope_id, webhook_id, recipient_number, attempt_number, state, again_at, error)
), settled AS (
    UPDATE webhook_events v
    SET state = told.state, tries = v.tries + 1, due_at = coalesce(told.again_at, v.due_at), last_error = told.error
    FROM told
    WHERE v.envelope_id = told.envelope_id AND v.webhook_id = told.webhook_id AND v.state + 0 = 0
        AND v.envelope_id = ANY ($1::uuid[]) AND v.recipient_number = told.recipient_number AND v.attempt_number = told.attempt_number
    RETURNING told.*
)
UPDATE webhook_events v SET due_at = told.again_at
FROM settled told
WHERE v.envelope_id = told.envelope_id AND v.webhook_id = told.webhook_id AND v.state + 0 = 0
    AND v.envelope_id = ANY ($1::uuid[]) AND v.due_at < told.again_at
    AND (v.recipient_number, v.attempt_number) <> (told.recipient_number, told.attempt_number);

-- name: given_up_until
-- With which message the next so many events end that were given up. $1 webhook, $2 after this id, $3 how many
SELECT envelope_id FROM (
    SELECT envelope_id FROM webhook_events
    WHERE webhook_id = $1 AND state = 2 AND envelope_id > $2::uuid ORDER BY envelope_id LIMIT $3
) found
ORDER BY envelope_id DESC LIMIT 1;

-- name: events_until
-- The same of all events, of whichever webhook: by the primary key. $1 after this id, $2 how many
SELECT envelope_id FROM (
    SELECT envelope_id FROM webhook_events WHERE envelope_id > $1::uuid ORDER BY envelope_id LIMIT $2
) found
ORDER BY envelope_id DESC LIMIT 1;

-- name: replay_given_up
-- $1 webhook, $2 after this id, $3 up to this id, $4 occurred from then on or null
UPDATE webhook_events SET state = 0, tries = 0, due_at = now(), replayed_at = now()
WHERE webhook_id = $1 AND state = 2 AND envelope_id > $2::uuid AND envelope_id <= $3::uuid
    AND ($4::timestamptz IS NULL OR occurred_at >= $4);

-- name: replay_all
-- As replay_given_up, also what was taken.
UPDATE webhook_events SET state = 0, tries = 0, due_at = now(), replayed_at = now()
WHERE webhook_id = $1 AND state IN (1, 2) AND envelope_id > $2::uuid AND envelope_id <= $3::uuid
    AND ($4::timestamptz IS NULL OR occurred_at >= $4);

-- name: event_counts
-- $1 webhook, $2 count no further
SELECT
    (SELECT count(*) FROM (SELECT FROM webhook_events WHERE webhook_id = $1 AND state = 0 LIMIT $2) w) AS waiting,
    (SELECT count(*) FROM (SELECT FROM webhook_events WHERE webhook_id = $1 AND state = 2 LIMIT $2) g) AS given_up;

-- name: tell_webhooks
-- In the transaction that recorded these attempts: those that it did record become events, for who wants them.
-- $1-$4 envelopes, recipients, attempts, workers; $5 lowest id, $6 highest id
INSERT INTO webhook_events (envelope_id, webhook_id, recipient_number, attempt_number, event, occurred_at, due_at, payload)
SELECT a.envelope_id, w.id, a.recipient_number, a.attempt_number, v.event, a.finished_at, now(),
    jsonb_build_object(
        'event', v.event,
        'message', jsonb_build_object('id', e.id, 'tenant_id', e.tenant_id, 'from', e.reverse_path,
            'received_at', v.received_at),
        'recipient', d.recipient,
        'attempt', jsonb_build_object('number', a.attempt_number, 'reply_code', a.reply_code,
            'enhanced_code', a.enhanced_code, 'reply_text', a.reply_text, 'remote', a.remote),
        'next_attempt_at', CASE WHEN v.event = 'deferred' THEN v.next_attempt_at END
    )
FROM (
    SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::smallint[], $4::uuid[])
        WITH ORDINALITY AS m (envelope_id, recipient_number, attempt_number, worker_id, place)
) made
JOIN attempts a ON a.envelope_id = made.envelope_id AND a.recipient_number = made.recipient_number
    AND a.attempt_number = made.attempt_number AND a.worker_id = made.worker_id
    AND a.finished_at IS NOT NULL AND a.envelope_id = ANY ($1::uuid[]) AND a.envelope_id BETWEEN $5::uuid AND $6::uuid
CROSS JOIN LATERAL (
    SELECT id, tenant_id, reverse_path, received_at FROM envelopes
    WHERE id = a.envelope_id AND id BETWEEN $5::uuid AND $6::uuid OFFSET 0
) e
JOIN webhooks w ON w.tenant_id = e.tenant_id AND w.disabled_at IS NULL
JOIN deliveries d ON d.envelope_id = a.envelope_id AND d.recipient_number = a.recipient_number
    AND d.envelope_id = ANY ($1::uuid[]) AND d.envelope_id BETWEEN $5::uuid AND $6::uuid
CROSS JOIN LATERAL (
    SELECT CASE
            WHEN a.outcome = 1 THEN 'delivered'
            WHEN a.outcome = 3 AND a.enhanced_code = '5.4.7' THEN 'expired'
            WHEN a.outcome = 3 THEN 'bounced'
            WHEN d.state = 4 THEN 'held'
            ELSE 'deferred'
        END AS event,
        to_char(e.received_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS received_at,
        to_char(d.next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS next_attempt_at
) v
WHERE cardinality(w.events) = 0 OR v.event = ANY (w.events)
ORDER BY made.place
ON CONFLICT DO NOTHING;

-- name: tell_changes
-- In the transaction in which an operator changed these deliveries, whose rows it has locked: events without an attempt.
-- Their numbers go down from -1, so that none is that of an attempt. $1 envelopes, $2 recipients' numbers, $3 event,
-- $4 lowest id, $5 highest id
INSERT INTO webhook_events (envelope_id, webhook_id, recipient_number, attempt_number, event, occurred_at, due_at, payload)
SELECT d.envelope_id, w.id, d.recipient_number, least(0, (
        SELECT min(v.attempt_number) FROM webhook_events v
        WHERE v.envelope_id = d.envelope_id AND v.webhook_id = w.id AND v.recipient_number = d.recipient_number
    )) - 1, $3::text, now(), now(),
    jsonb_build_object(
        'event', $3::text,
        'message', jsonb_build_object('id', e.id, 'tenant_id', e.tenant_id, 'from', e.reverse_path,
            'received_at', to_char(e.received_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')),
        'recipient', d.recipient,
        'attempt', NULL,
        'next_attempt_at', CASE WHEN d.state = 0
            THEN to_char(d.next_attempt_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') END
    )
FROM (
    SELECT * FROM unnest($1::uuid[], $2::smallint[]) WITH ORDINALITY AS m (envelope_id, recipient_number, place)
) made
JOIN deliveries d ON d.envelope_id = made.envelope_id AND d.recipient_number = made.recipient_number
    AND d.envelope_id = ANY ($1::uuid[]) AND d.envelope_id BETWEEN $4::uuid AND $5::uuid
CROSS JOIN LATERAL (
    SELECT id, tenant_id, reverse_path, received_at FROM envelopes
    WHERE id = made.envelope_id AND id BETWEEN $4::uuid AND $5::uuid OFFSET 0
) e
JOIN webhooks w ON w.tenant_id = e.tenant_id AND w.disabled_at IS NULL
WHERE cardinality(w.events) = 0 OR $3::text = ANY (w.events)
ORDER BY made.place;

-- name: retentions
-- $1 a tenant's name or null
SELECT id AS tenant_id, retention_days AS days, keep_bodies FROM tenants WHERE $1::text IS NULL OR name = $1 ORDER BY id;

-- name: set_retention
UPDATE tenants SET retention_days = $2, keep_bodies = $3 WHERE id = $1;

-- name: any_privacy
SELECT EXISTS (SELECT FROM tenants WHERE NOT keep_bodies);

-- name: old_messages
-- $1 tenant, $2 before this id, $3 after this id or null, $4 at most
SELECT id, recipient_count FROM envelopes
WHERE tenant_id = $1 AND id < $2::uuid AND ($3::uuid IS NULL OR id > $3) ORDER BY id LIMIT $4;

-- name: messages_and_contents
-- The next so many of a tenant's, and whether their content is there. $1 tenant, $2 after this id, $3 how many
SELECT e.id, e.recipient_count, (
    e.content IS NOT NULL OR EXISTS (SELECT FROM content_parts p WHERE p.envelope_id = e.id)
    OR EXISTS (SELECT FROM bodies b WHERE b.envelope_id = e.id)
) AS has_content
FROM envelopes e WHERE e.tenant_id = $1 AND e.id > $2::uuid ORDER BY e.id LIMIT $3;

-- name: these_and_contents
-- As messages_and_contents, of these. $1 ids, $2 lowest id, $3 highest id
SELECT e.id, e.recipient_count, (
    e.content IS NOT NULL OR EXISTS (SELECT FROM content_parts p WHERE p.envelope_id = e.id)
    OR EXISTS (SELECT FROM bodies b WHERE b.envelope_id = e.id)
) AS has_content
FROM envelopes e WHERE e.id = ANY ($1::uuid[]) AND e.id BETWEEN $2::uuid AND $3::uuid;

-- name: lock_settled
-- What somebody else has locked is not settled for certain, and not waited for. $1 ids, $2 lowest id, $3 highest id,
-- $4 settled states
SELECT envelope_id FROM deliveries
WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid AND state = ANY ($4::smallint[])
FOR UPDATE SKIP LOCKED;

-- name: delete_messages
-- $1 ids, $2 lowest id, $3 highest id
WITH a AS (DELETE FROM attempts WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid),
    p AS (DELETE FROM content_parts WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid),
    b AS (DELETE FROM bodies WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid),
    w AS (DELETE FROM webhook_events WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid),
    d AS (DELETE FROM deliveries WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid)
DELETE FROM envelopes WHERE id = ANY ($1::uuid[]) AND id BETWEEN $2::uuid AND $3::uuid;

-- name: lock_private
-- Messages whose content is not to be kept, locked against a replay. $1 ids, $2 lowest id, $3 highest id
SELECT e.id FROM envelopes e JOIN tenants t ON t.id = e.tenant_id AND NOT t.keep_bodies
WHERE e.id = ANY ($1::uuid[]) AND e.id BETWEEN $2::uuid AND $3::uuid
ORDER BY e.id FOR UPDATE OF e;

-- name: settled_messages
-- Of these, those whose last recipient is settled. $1 ids, $2 lowest id, $3 highest id, $4 settled states
SELECT e.id FROM envelopes e
WHERE e.id = ANY ($1::uuid[]) AND e.id BETWEEN $2::uuid AND $3::uuid AND NOT EXISTS (
    SELECT FROM deliveries d WHERE d.envelope_id = e.id AND d.state <> ALL ($4::smallint[])
        AND d.envelope_id = ANY ($1::uuid[]) AND d.envelope_id BETWEEN $2::uuid AND $3::uuid
);

-- name: keep_contents
-- Nobody forgets the content of these until the transaction ends. $1 ids, $2 lowest id, $3 highest id
SELECT FROM envelopes WHERE id = ANY ($1::uuid[]) AND id BETWEEN $2::uuid AND $3::uuid ORDER BY id FOR SHARE;

-- name: forget_contents
-- $1 ids, $2 lowest id, $3 highest id
WITH p AS (DELETE FROM content_parts WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid),
    b AS (DELETE FROM bodies WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid)
UPDATE envelopes SET content = NULL
WHERE id = ANY ($1::uuid[]) AND id BETWEEN $2::uuid AND $3::uuid AND content IS NOT NULL;

-- name: some_are_open
-- Of the next so many rows, by the primary key: whether one is open, and with which they end (null: there are none).
-- A state of a later release counts as open. The table's name is replaced by a partition's.
-- $1 after this message, $2 and this recipient, $3 how many
SELECT bool_or(state NOT IN (2, 3, 5)) AS is_open,
    (array_agg(envelope_id ORDER BY envelope_id DESC, recipient_number DESC))[1] AS envelope_id,
    (array_agg(recipient_number ORDER BY envelope_id DESC, recipient_number DESC))[1] AS recipient_number
FROM (
    SELECT state, envelope_id, recipient_number FROM deliveries
    WHERE (envelope_id, recipient_number) > ($1::uuid, $2::smallint) ORDER BY envelope_id, recipient_number LIMIT $3
) looked_at;

-- name: has_open_by_index
-- The same for what this release can open again, by the partial indexes, while everybody waits.
SELECT EXISTS (SELECT FROM deliveries WHERE state IN (0, 1)) OR EXISTS (SELECT FROM deliveries WHERE state = 4);

-- name: has_events_by_index
-- Whether any event still waits to be told and is not yet given up: one that was replayed is due since then, and nobody
-- moves what a webhook waits for that is switched off. The table's name is replaced by a partition's.
-- $1 since when they are tried
SELECT EXISTS (SELECT FROM webhook_events WHERE state = 0 AND greatest(occurred_at, due_at) > $1);

-- name: with_events
-- Those of these messages of which an event still waits to be told and is not yet given up.
-- $1 ids, $2 lowest id, $3 highest id, $4 since when they are tried
SELECT DISTINCT envelope_id FROM webhook_events
WHERE envelope_id = ANY ($1::uuid[]) AND envelope_id BETWEEN $2::uuid AND $3::uuid AND state + 0 = 0
    AND greatest(occurred_at, due_at) > $4;

-- name: day_tables
-- Ordinary tables that are partitions, or that were until they were marked to be dropped. $1 which, $2 the mark
SELECT c.relname FROM pg_class c
WHERE c.relkind = 'r' AND c.relispartition = $1 AND c.relnamespace = current_schema()::regnamespace
    AND ($1 OR obj_description(c.oid, 'pg_class') = $2);

-- name: plan_for_these_values
-- For statements whose best plan depends on what is asked for.
SET LOCAL plan_cache_mode = force_custom_plan;

-- name: in_open_state
-- Whose deliveries are in that state: 0, 1 or 4, which have an index; a message once for each. $1 state, $2 at most
SELECT envelope_id FROM deliveries WHERE state = $1::smallint LIMIT $2;

-- name: list_until
-- With which message the next so many end, newest first; none: there are fewer. $1 tenant or null, $2 before this id or
-- null, $3 how many
SELECT id FROM envelopes
WHERE ($1::uuid IS NULL OR tenant_id = $1) AND ($2::uuid IS NULL OR id < $2)
ORDER BY id DESC OFFSET $3 - 1 LIMIT 1;

-- name: list_messages
-- Newest first. $1 tenant or null, $2 state of at least one delivery or null, $3 before this id or null, $4 limit,
-- $5 from this id on or null, $6 of these ids or null
-- Chosen by indexes alone, since the rows themselves lie among the messages' bodies. The ARRAY is a lookup by key for each
-- message: EXISTS might be planned as reading all deliveries in that state.
WITH chosen AS MATERIALIZED (
    SELECT e.id FROM envelopes e
    WHERE ($1::uuid IS NULL OR e.tenant_id = $1)
        AND ($2::smallint IS NULL OR $2 = ANY (ARRAY(SELECT d.state FROM deliveries d WHERE d.envelope_id = e.id)))
        AND ($3::uuid IS NULL OR e.id < $3)
        AND ($5::uuid IS NULL OR e.id >= $5)
        AND ($6::uuid[] IS NULL OR e.id = ANY ($6))
    ORDER BY e.id DESC
    LIMIT $4
)
SELECT e.id, e.tenant_id, e.credential_id, e.reverse_path, e.size_bytes, e.received_at, e.helo, e.client_address, e.tls,
    e.tls_suite, d.recipients, d.states, d.lane
FROM chosen JOIN envelopes e ON e.id = chosen.id
CROSS JOIN LATERAL (
    SELECT array_agg(recipient ORDER BY recipient_number) AS recipients, array_agg(state ORDER BY recipient_number) AS states,
        min(lane) AS lane
    FROM deliveries WHERE envelope_id = chosen.id
) d
ORDER BY e.id DESC;

-- name: message
SELECT id, tenant_id, credential_id, reverse_path, size_bytes, received_at, helo, client_address, tls, dsn_ret, dsn_envid,
    tls_suite
FROM envelopes WHERE id = $1;

-- name: message_deliveries
SELECT recipient_number, recipient, state, attempt_count, next_attempt_at, claimed_by, finished_at, waits_for,
    dsn_notify, dsn_orcpt, lane, route
FROM deliveries WHERE envelope_id = $1 ORDER BY recipient_number;

-- name: message_attempts
SELECT recipient_number, attempt_number, outcome, reply_code, enhanced_code, reply_text, remote, worker_id, started_at, finished_at,
    kind
FROM attempts WHERE envelope_id = $1 ORDER BY recipient_number, attempt_number;

-- name: try_lead
SELECT pg_try_advisory_lock(hashtextextended($1, 0));

-- name: blockers
-- Who keeps that backend waiting. $1 its pid
SELECT b.pid, a.application_name, a.backend_type, a.state, extract(epoch FROM now() - a.xact_start)::float8 AS seconds,
    left(regexp_replace(a.query, '\s+', ' ', 'g'), 120) AS query
FROM (SELECT DISTINCT unnest(pg_blocking_pids($1)) AS pid) b LEFT JOIN pg_stat_activity a ON a.pid = b.pid
ORDER BY a.xact_start;

-- name: partitions_without_index
-- $1 table, $2 its index
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = to_regclass($1::text) AND NOT EXISTS (
    SELECT FROM pg_index x JOIN pg_inherits xi ON xi.inhrelid = x.indexrelid
    WHERE x.indrelid = c.oid AND xi.inhparent = to_regclass($2::text)
)
ORDER BY c.relname;

-- name: has_valid_index
SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass($1::text) AND indisvalid);

-- name: lock_partitions
SELECT pg_advisory_xact_lock(hashtextextended('smtp_proxy_partitions', 0));

-- name: partitions
-- Names of all partitions of these tables. $1 parents
SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
WHERE i.inhparent = ANY ($1::regclass[]);

-- name: create_migrations_table
CREATE TABLE IF NOT EXISTS schema_migrations (
    number integer PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('pre', 'post')),
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
);

-- name: current_schema
SELECT current_schema();

-- name: is_member
-- Nothing: there is no role $2.
SELECT pg_has_role($1, oid, 'MEMBER') FROM pg_roles WHERE rolname = $2;

-- name: role_facts
-- What a role may beyond the schema, by itself or as a member of another. $1 its name
SELECT r.rolcanlogin AS logs_in, ARRAY(
    SELECT power FROM pg_roles p, LATERAL (VALUES ('SUPERUSER', p.rolsuper), ('CREATEROLE', p.rolcreaterole),
        ('CREATEDB', p.rolcreatedb), ('REPLICATION', p.rolreplication), ('BYPASSRLS', p.rolbypassrls),
        ('rds_superuser', p.rolname = 'rds_superuser')) AS has (power, held)
    WHERE held AND pg_has_role(r.oid, p.oid, 'MEMBER') GROUP BY power ORDER BY power
) AS powers
FROM pg_roles r WHERE r.rolname = $1;

-- name: to_hand_over
-- What is ours in the schema: the beginning of an ALTER for each. A sequence of a column follows its table, a table's row
-- type too; what an extension brought stays where it is.
WITH ours AS (
    SELECT current_user::regrole AS oid
), here AS (
    SELECT current_schema()::regnamespace AS schema
)
SELECT 'ALTER ' || CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' WHEN 'v' THEN 'VIEW ' WHEN 'm' THEN 'MATERIALIZED VIEW '
        ELSE 'TABLE ' END || c.oid::regclass AS change
FROM pg_class c, here
WHERE c.relnamespace = here.schema AND c.relkind IN ('r', 'p', 'S', 'v', 'm') AND c.relowner IN (SELECT oid FROM ours)
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
        AND (d.deptype = 'e' OR c.relkind = 'S' AND d.deptype IN ('a', 'i')))
UNION ALL
SELECT 'ALTER ROUTINE ' || p.oid::regprocedure
FROM pg_proc p, here
WHERE p.pronamespace = here.schema AND p.proowner IN (SELECT oid FROM ours)
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e')
UNION ALL
SELECT 'ALTER TYPE ' || t.oid::regtype
FROM pg_type t, here
WHERE t.typnamespace = here.schema AND t.typtype IN ('e', 'd', 'r') AND t.typowner IN (SELECT oid FROM ours)
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype = 'e')
ORDER BY 1;

-- name: has_migrations_table
SELECT to_regclass('schema_migrations') IS NOT NULL;

-- name: applied_migrations
SELECT number, kind, name, checksum FROM schema_migrations ORDER BY number;

-- name: add_migration
INSERT INTO schema_migrations (number, kind, name, checksum) VALUES ($1, $2, $3, $4);

-- Certificates (certificates.py).

-- name: certificate_by_id
SELECT * FROM certificates WHERE id = $1;

-- name: list_certificates_of_fleet
-- $1 of that name or of any; $2 current ones alone
SELECT * FROM certificates WHERE ($1::text IS NULL OR name = $1) AND (NOT $2 OR state = 'current')
ORDER BY name, created_at DESC, id DESC;

-- name: retire_certificate
-- The state goes first, since one alone can be current; who replaces it can be named once that is there.
UPDATE certificates SET state = 'replaced' WHERE name = $1 AND state = 'current' RETURNING id;

-- name: name_successor
UPDATE certificates SET replaced_by = $2 WHERE id = $1;

-- name: add_certificate_of_fleet
INSERT INTO certificates (id, name, names, chain, sealed_key, secret_key_id, not_before, not_after, directory, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: set_certificate_state
UPDATE certificates SET state = $2 WHERE id = $1 RETURNING id;

-- name: set_renewal_time
UPDATE certificates SET renew_at = $2, ask_again_at = $3 WHERE id = $1;

-- name: forget_certificates
DELETE FROM certificates WHERE state <> 'current' AND not_after < $1
    AND NOT EXISTS (SELECT FROM certificates other WHERE other.replaced_by = certificates.id AND other.not_after >= $1);

-- name: reseal_certificate
UPDATE certificates SET secret_key_id = $3, sealed_key = $4 WHERE id = $1 AND sealed_key = $2 RETURNING id;

-- name: list_acme_accounts
SELECT * FROM acme_accounts ORDER BY directory;

-- name: add_acme_account
INSERT INTO acme_accounts (id, directory, kid, sealed_key, secret_key_id) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (directory) DO UPDATE
    SET id = excluded.id, kid = excluded.kid, sealed_key = excluded.sealed_key, secret_key_id = excluded.secret_key_id;

-- name: reseal_acme_account
UPDATE acme_accounts SET secret_key_id = $3, sealed_key = $4 WHERE id = $1 AND sealed_key = $2 RETURNING id;

-- name: put_acme_challenge
-- By the clock of the database: who asks and who answers are different machines.
INSERT INTO acme_challenges (token, key_authorization, expires_at) VALUES ($1, $2, now() + $3::interval)
ON CONFLICT (token) DO UPDATE SET key_authorization = excluded.key_authorization, expires_at = excluded.expires_at;

-- name: acme_challenge
SELECT key_authorization FROM acme_challenges WHERE token = $1 AND expires_at > now();

-- name: remove_acme_challenge
DELETE FROM acme_challenges WHERE token = $1 OR expires_at <= now();

-- name: list_certificate_orders
SELECT * FROM certificate_orders ORDER BY name;

-- name: put_certificate_order
-- What is declared anew keeps its attempts, unless it is about other names.
INSERT INTO certificate_orders (name, names, challenge, declared_by) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET names = excluded.names, challenge = excluded.challenge,
    declared_by = excluded.declared_by,
    attempts = CASE WHEN certificate_orders.names = excluded.names THEN certificate_orders.attempts ELSE 0 END,
    next_try_at = CASE WHEN certificate_orders.names = excluded.names THEN certificate_orders.next_try_at END;

-- name: remove_certificate_order
DELETE FROM certificate_orders WHERE name = $1 RETURNING name;

-- name: ask_for_certificate
UPDATE certificate_orders SET asked_at = $2 WHERE name = $1 RETURNING name;

-- name: begin_certificate_attempt
-- Before the CA is asked: whatever happens then, it is not asked again at once. $2 next try; $3 the operator's wish that
-- this attempt is for: compared with itself alone, since it was written by the clock of another machine.
UPDATE certificate_orders SET attempts = attempts + 1, next_try_at = $2, last_error = 'under way, or it was broken off',
    asked_at = CASE WHEN asked_at IS DISTINCT FROM $3 THEN asked_at END
WHERE name = $1;

-- name: record_certificate_attempt
-- $2 failed; $3 next try, $4 why, $5 alerted
UPDATE certificate_orders SET attempts = CASE WHEN $2 THEN attempts ELSE 0 END, next_try_at = $3, last_error = $4,
    alerted_at = $5
WHERE name = $1;
