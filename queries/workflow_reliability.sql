-- entity: workflow
-- windows: 24h, 7d, 30d
-- owner: process-owners
-- description: How reliably runs of the workflow end, and what humans decided about them.
SELECT
    count(*) FILTER (WHERE kind = 'execution')                                AS executions,       -- runs that ended, cancelled ones included
    count(*) FILTER (WHERE kind = 'execution' AND outcome <> 'cancelled')     AS attempts,         -- runs that ended by themselves
    count(*) FILTER (WHERE kind = 'execution' AND outcome IN ('failed', 'timed_out'))
                                                                              AS failures,         -- of these, failed or out of time
    failures / nullif(attempts, 0)                                            AS failure_rate,     -- 0..1
    wilson_lower(failures, attempts)                                          AS failure_rate_low, -- 95 % lower bound of the failure rate
    count(*) FILTER (WHERE kind = 'authority' AND outcome IN ('approved', 'overridden', 'rejected'))
                                                                              AS human_decisions,  -- requests that a human answered
    count(*) FILTER (WHERE kind = 'authority' AND outcome = 'rejected')       AS rejections,       -- of these, rejected
    rejections / nullif(human_decisions, 0)                                   AS rejection_rate    -- 0..1, of what humans answered
FROM events
WHERE kind IN ('execution', 'authority')
