-- entity: agent
-- windows: 1h, 24h, 7d, 30d
-- owner: risk-engineering
-- description: How reliably the agent finishes what it starts. A cancelled run is neither a success nor a failure.
SELECT
    count(*)                                                   AS executions,            -- runs that ended, cancelled ones included
    count(*) FILTER (WHERE outcome <> 'cancelled')             AS attempts,              -- runs that ended by themselves: what rates are taken of
    count(*) FILTER (WHERE outcome IN ('failed', 'timed_out')) AS failures,              -- of these, failed or out of time
    count(*) FILTER (WHERE outcome = 'timed_out')              AS timeouts,              -- of these, out of time
    failures / nullif(attempts, 0)                             AS failure_rate,          -- 0..1
    wilson_lower(failures, attempts)                           AS failure_rate_low,      -- 95 % lower bound of the failure rate
    current_streak(outcome IN ('failed', 'timed_out'), occurred_at, seq)
                                                               AS failure_streak,        -- failures in a row up to now, cancelled runs end it
    seconds_since_last(outcome IN ('failed', 'timed_out'), occurred_at, as_of)
                                                               AS seconds_since_failure  -- since the last failure in the window
FROM events
WHERE kind = 'execution'
