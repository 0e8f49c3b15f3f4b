-- entity: agent
-- owner: risk-engineering
-- description: Has the agent failed significantly in the last 24 h: more than is tolerated, or more than it used to, beyond chance?
-- param min_runs: 20
-- param tolerated_rate: 0.05
-- param z: 4.0
SELECT
    last_24h.attempts >= min_runs                AS enough_runs,          -- always there; without it nothing below is said about tolerance
    last_30d.attempts - last_24h.attempts        AS baseline_attempts,    -- runs of the 29 days before the last 24 h
    last_30d.failures - last_24h.failures        AS baseline_failures,    -- of these, failed or out of time
    two_proportion_z(last_24h.failures, last_24h.attempts, baseline_failures, baseline_attempts)
                                                 AS failure_change_z,     -- standard errors above (+) or below (-) the baseline
    CASE WHEN enough_runs
         THEN wilson_lower(last_24h.failures, last_24h.attempts, z) > tolerated_rate
              OR (baseline_attempts >= min_runs AND coalesce(failure_change_z >= z, false))
    END                                          AS failed_significantly  -- absent without enough runs: not "no"
FROM signals
