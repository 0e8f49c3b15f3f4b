package gantral.authority_test

import rego.v1

import data.gantral.authority

# A request with a history that says nothing bad, and enough good.
good := {
	"instance": {"instance_id": "inst-1", "workflow_id": "refund-approval", "materiality": "MEDIUM", "owning_team_id": "payments"},
	"identity": {"actor_id": "payments-refunder-03", "roles": ["agent"]},
	"history": {
		"status": "fresh",
		"suspended": false,
		"agent": {
			"id": "payments-refunder-03",
			"known": true,
			"last_1h": {"complete": true, "requests": 12, "requests_burst_5m": 3},
			"last_24h": {"complete": true, "attempts": 120, "failures": 2},
			"last_7d": {"complete": true, "human_decisions": 40, "rejections": 1},
			"enough_runs": true,
			"failed_significantly": false,
			"enough_decisions": true,
			"rejected_significantly": false,
		},
		"approvers": {
			"alice": {"last_1h": {"decisions": 3}, "last_24h": {"approval_streak": 4}},
			"bjorn": {"last_1h": {"decisions": 5}, "last_24h": {"approval_streak": 2}},
		},
	},
}

of(materiality) := object.union(good, {"instance": {"materiality": materiality}})

with_agent(request, changes) := object.union(request, {"history": {"agent": changes}})

without(request, paths) := json.remove(request, paths)

materialities := {"LOW", "MEDIUM", "HIGH"}

verdict(request) := found if {
	found := authority.decision.decision with input as request
}

test_a_clear_record_is_allowed_up_to_medium if {
	verdict(of("LOW")) == "ALLOW"
	verdict(of("MEDIUM")) == "ALLOW"
	verdict(of("HIGH")) == "REQUIRE_HUMAN"
}

test_the_answer_has_gantrals_fields_and_no_other if {
	every m in materialities | {"NONSENSE"} {
		answer := authority.decision with input as of(m)
		object.keys(answer) == {"decision", "approver_roles", "timeout", "escalation_roles"}
		is_array(answer.approver_roles)
		is_array(answer.escalation_roles)
		is_string(answer.timeout)
	}
}

test_what_needs_a_human_names_who_and_how_long if {
	authority.decision == {
		"decision": "REQUIRE_HUMAN",
		"approver_roles": ["risk-officer"],
		"timeout": "30m",
		"escalation_roles": ["head-of-risk"],
	} with input as of("HIGH")
}

test_what_is_allowed_or_denied_names_nobody if {
	authority.decision == {
		"decision": "ALLOW",
		"approver_roles": [],
		"timeout": "0s",
		"escalation_roles": [],
	} with input as good
}

test_an_unknown_materiality_is_the_highest if {
	verdict(of("NONSENSE")) == "REQUIRE_HUMAN"
	verdict(without(good, ["/instance/materiality"])) == "REQUIRE_HUMAN"
	verdict(of(null)) == "REQUIRE_HUMAN"
}

test_missing_history_is_never_allowed if {
	verdict(without(of("LOW"), ["/history"])) == "REQUIRE_HUMAN"
	verdict(without(of("MEDIUM"), ["/history"])) == "REQUIRE_HUMAN"
	verdict(without(of("HIGH"), ["/history"])) == "DENY"
	verdict({}) == "DENY"
}

test_history_that_is_not_fresh_is_never_allowed if {
	some status in ["stale", "unavailable", "", null, true, 1]
	verdict(object.union(of("LOW"), {"history": {"status": status}})) == "REQUIRE_HUMAN"
	verdict(object.union(of("MEDIUM"), {"history": {"status": status}})) == "REQUIRE_HUMAN"
	verdict(object.union(of("HIGH"), {"history": {"status": status}})) == "DENY"
}

test_history_at_the_wrong_place_is_no_history if {
	moved := object.union(without(of("LOW"), ["/history"]), {"context": {"attributes": {"history": good.history}}})
	verdict(moved) == "REQUIRE_HUMAN"
}

# Whatever single thing that history says is taken away: never more is allowed than with it.
test_silence_never_allows_a_medium_request if {
	paths := [
		"/history/status", "/history/suspended", "/history/agent", "/history/agent/known", "/history/agent/last_1h",
		"/history/agent/last_1h/requests", "/history/agent/last_1h/requests_burst_5m",
		"/history/agent/enough_runs", "/history/agent/enough_decisions",
	]
	every path in paths {
		verdict(without(good, [path])) == "REQUIRE_HUMAN"
		verdict(without(of("LOW"), [path])) == "REQUIRE_HUMAN"
	}
	verdict(without(good, ["/history/agent/failed_significantly", "/history/agent/rejected_significantly"])) == "REQUIRE_HUMAN"
}

test_suspended_is_denied if {
	every m in materialities {
		verdict(object.union(of(m), {"history": {"suspended": true}})) == "DENY"
	}
}

test_an_unknown_agent_needs_a_human if {
	every m in materialities {
		verdict(with_agent(of(m), {"known": false})) == "REQUIRE_HUMAN"
	}
}

test_significantly_worse if {
	every question in ["failed_significantly", "rejected_significantly"] {
		verdict(with_agent(of("LOW"), {question: true})) == "REQUIRE_HUMAN"
		verdict(with_agent(of("MEDIUM"), {question: true})) == "DENY"
		verdict(with_agent(of("HIGH"), {question: true})) == "DENY"
	}
}

test_one_clear_question_is_enough_for_medium_and_none_is_not if {
	no_runs := with_agent(without(good, ["/history/agent/failed_significantly"]), {"enough_runs": false})
	verdict(no_runs) == "ALLOW"
	nothing := with_agent(
		without(no_runs, ["/history/agent/rejected_significantly"]),
		{"enough_decisions": false},
	)
	verdict(nothing) == "REQUIRE_HUMAN"
	verdict(object.union(nothing, {"instance": {"materiality": "LOW"}})) == "ALLOW"
}

test_too_fast_needs_a_human if {
	verdict(with_agent(good, {"last_1h": {"requests": 121}})) == "REQUIRE_HUMAN"
	verdict(with_agent(good, {"last_1h": {"requests": 120}})) == "ALLOW"
	verdict(with_agent(of("LOW"), {"last_1h": {"requests_burst_5m": 31}})) == "REQUIRE_HUMAN"
}

test_without_limits_nothing_is_allowed if {
	authority.decision.decision == "REQUIRE_HUMAN" with input as of("LOW") with data.gantral.limits as {}
}

test_tired_approvers_are_passed_over if {
	tired := object.union(good, {
		"instance": {"materiality": "HIGH"},
		"history": {"approvers": {"alice": {"last_1h": {"decisions": 21}}, "bjorn": {"last_24h": {"approval_streak": 61}}}},
	})
	authority.decision.approver_roles == ["head-of-risk"] with input as tired
	one := object.union(tired, {"history": {"approvers": {"alice": {"last_1h": {"decisions": 20}}}}})
	authority.decision.approver_roles == ["risk-officer"] with input as one
	none := without(tired, ["/history/approvers"])
	authority.decision.approver_roles == ["risk-officer"] with input as none
}

test_reasons_say_why if {
	authority.reasons == ["the agent's record is clear"] with input as good
	authority.reasons == ["it failed significantly: 2 of 120 runs in the last 24 h"] with input as with_agent(good, {"failed_significantly": true})
	authority.reasons == ["history is stale"] with input as object.union(good, {"history": {"status": "stale"}})
	authority.reasons == ["history is missing from the input", "the materiality is high"] with input as {}
}
