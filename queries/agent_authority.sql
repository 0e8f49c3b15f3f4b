-- entity: agent
-- windows: 24h, 7d, 30d
-- owner: risk-engineering
-- description: What was decided about the agent's requests: first by policy, then by humans. A time-out says that nobody looked, so it is in no rate.
SELECT
    count(*) FILTER (WHERE outcome = 'allowed')                               AS allowed,             -- let through by policy alone
    count(*) FILTER (WHERE outcome = 'required_human')                        AS required_human,      -- sent to a human
    count(*) FILTER (WHERE outcome = 'denied')                                AS denied,              -- refused by policy
    count(*) FILTER (WHERE outcome IN ('approved', 'overridden', 'rejected')) AS human_decisions,     -- answered by a human
    count(*) FILTER (WHERE outcome = 'rejected')                              AS rejections,          -- of these, rejected
    count(*) FILTER (WHERE outcome = 'overridden')                            AS overrides,           -- of these, let through with changes
    count(*) FILTER (WHERE outcome = 'timed_out')                             AS approvals_timed_out, -- nobody answered in time
    rejections / nullif(human_decisions, 0)                                   AS rejection_rate,      -- 0..1, of what humans answered
    wilson_lower(rejections, human_decisions)                                 AS rejection_rate_low,  -- 95 % lower bound of the rejection rate
    seconds_since_last(outcome = 'rejected', occurred_at, as_of)              AS seconds_since_rejection -- since the last rejection in the window
FROM events
WHERE kind = 'authority'
