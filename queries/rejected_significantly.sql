-- entity: agent
-- owner: risk-engineering
-- description: Have humans rejected the agent's requests significantly in the last 7 days: more than is tolerated, or more than they used to, beyond chance?
-- param min_runs: 10
-- param tolerated_rate: 0.15
-- param z: 3.5
SELECT
    last_7d.human_decisions >= min_runs                 AS enough_decisions,      -- the companion enough_runs of this question: always there
    last_30d.human_decisions - last_7d.human_decisions  AS baseline_decisions,    -- human answers of the 23 days before the last 7
    last_30d.rejections - last_7d.rejections            AS baseline_rejections,   -- of these, rejections
    two_proportion_z(last_7d.rejections, last_7d.human_decisions, baseline_rejections, baseline_decisions)
                                                        AS rejection_change_z,    -- standard errors above (+) or below (-) the baseline
    CASE WHEN enough_decisions
         THEN wilson_lower(last_7d.rejections, last_7d.human_decisions, z) > tolerated_rate
              OR (baseline_decisions >= min_runs AND coalesce(rejection_change_z >= z, false))
    END                                                 AS rejected_significantly -- absent without enough decisions: not "no"
FROM signals
