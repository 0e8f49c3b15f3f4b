-- entity: agent
-- windows: 1h, 24h, 30d
-- owner: finops
-- description: What the agent's ended runs really cost and moved. Steps are left out, since a run reports their sum; currencies are never added.
SELECT
    coalesce(sum(cost_microusd), 0)                                    AS cost_microusd_sum, -- cost of runs, millionths of a US dollar
    coalesce(sum(input_tokens), 0)                                     AS input_tokens_sum,  -- model input tokens of runs
    coalesce(sum(output_tokens), 0)                                    AS output_tokens_sum, -- model output tokens of runs
    coalesce(sum(amount_minor) FILTER (WHERE currency = 'EUR'), 0)     AS amount_eur_minor,  -- money moved in EUR, cents
    coalesce(sum(amount_minor) FILTER (WHERE currency = 'USD'), 0)     AS amount_usd_minor,  -- money moved in USD, cents
    count(*) FILTER (WHERE amount_minor IS NOT NULL AND (currency IS NULL OR currency NOT IN ('EUR', 'USD')))
                                                                       AS amounts_elsewhere  -- runs whose amount stands in neither sum
FROM events
WHERE kind = 'execution'
