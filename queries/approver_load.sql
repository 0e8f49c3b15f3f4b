-- entity: approver
-- windows: 1h, 24h, 7d
-- owner: risk-engineering
-- description: How much a human is asked to decide, and whether the answers still look like decisions: approval fatigue.
SELECT
    count(*)                                                     AS decisions,       -- requests this human answered
    count(*) FILTER (WHERE outcome IN ('approved', 'overridden')) AS approvals,      -- of these, let through, changed or not
    count(*) FILTER (WHERE outcome = 'rejected')                 AS rejections,      -- of these, rejected
    rejections / nullif(decisions, 0)                            AS rejection_rate,  -- 0..1; near 0 under load is fatigue's sign
    current_streak(outcome = 'approved', occurred_at, seq)       AS approval_streak, -- plain approvals in a row up to now
    burst(outcome IN ('approved', 'overridden', 'rejected'), occurred_at, INTERVAL 10 MINUTE)
                                                                 AS decisions_burst_10m -- the most answers within any 10 minutes of the window
FROM events
WHERE kind = 'authority' AND outcome IN ('approved', 'overridden', 'rejected')
