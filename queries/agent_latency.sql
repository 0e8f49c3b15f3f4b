-- entity: agent
-- windows: 1h, 24h
-- owner: platform-engineering
-- description: How long the agent's runs take. Runs without a duration, and cancelled ones, are left out.
SELECT
    count(*)                         AS timed_runs,       -- runs with a known duration
    avg(duration_ms)                 AS duration_mean_ms, -- mean, milliseconds
    quantile_cont(duration_ms, 0.5)  AS duration_p50_ms,  -- median, milliseconds, interpolated
    quantile_cont(duration_ms, 0.95) AS duration_p95_ms   -- 95th percentile, milliseconds, interpolated
FROM events
WHERE kind = 'execution' AND outcome <> 'cancelled' AND duration_ms IS NOT NULL
