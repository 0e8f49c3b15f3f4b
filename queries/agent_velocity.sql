-- entity: agent
-- windows: 1h, 24h
-- owner: risk-engineering
-- description: How fast the agent asks for authority. A human's answer is no request.
SELECT
    count(*)                                               AS requests,          -- times the agent asked for authority
    burst(outcome IN ('allowed', 'required_human', 'denied'), occurred_at, INTERVAL 5 MINUTE)
                                                           AS requests_burst_5m, -- the most requests within any 5 minutes of the window
    count(DISTINCT workflow_id)                            AS workflows_asked    -- different workflows asked for
FROM events
WHERE kind = 'authority' AND outcome IN ('allowed', 'required_human', 'denied')
