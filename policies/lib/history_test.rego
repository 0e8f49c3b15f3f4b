package lib.history_test

import rego.v1

import data.lib.history

fresh := {"status": "fresh", "suspended": false, "agent": {
	"known": true,
	"last_1h": {"complete": false, "requests": 5, "text": "5"},
	"enough": true,
	"yes": true,
	"no": false,
}}

test_clear_and_raised_are_both_false_when_nothing_is_said if {
	not history.clear("agent", "absent", "enough") with input.history as fresh
	not history.raised("agent", "absent") with input.history as fresh
	not history.clear("agent", "no", "absent") with input.history as fresh
	history.clear("agent", "no", "enough") with input.history as fresh
	history.raised("agent", "yes") with input.history as fresh
	not history.clear("agent", "yes", "enough") with input.history as fresh
}

test_nothing_is_read_from_a_history_that_is_not_fresh if {
	stale := object.union(fresh, {"status": "stale"})
	not history.usable with input.history as stale
	not history.known("agent") with input.history as stale
	not history.clear("agent", "no", "enough") with input.history as stale
	not history.raised("agent", "yes") with input.history as stale
	not history.at_most("agent", "last_1h", "requests", 9) with input.history as stale
	not history.above("agent", "last_1h", "requests", 1) with input.history as stale
}

test_a_limit_holds_numbers_only if {
	history.at_most("agent", "last_1h", "requests", 5) with input.history as fresh
	not history.at_most("agent", "last_1h", "requests", 4) with input.history as fresh
	not history.at_most("agent", "last_1h", "absent", 9) with input.history as fresh
	not history.at_most("agent", "last_1h", "text", "9") with input.history as fresh
	not history.at_most("agent", "last_1h", "requests", null) with input.history as fresh
	history.above("agent", "last_1h", "requests", 4) with input.history as fresh
}

test_usable_needs_a_word_about_suspension if {
	history.usable with input.history as fresh
	not history.usable with input.history as json.remove(fresh, ["/suspended"])
	history.problems == {"history does not say whether authority is suspended"} with input.history as json.remove(fresh, ["/suspended"])
	history.problems == set() with input.history as fresh
}

test_complete_is_only_what_says_so if {
	not history.complete("agent", "last_1h") with input.history as fresh
	history.complete("agent", "last_1h") with input.history as object.union(fresh, {"agent": {"last_1h": {"complete": true}}})
}

test_a_reason_shows_what_is_missing if {
	text := history.reason("%v of %v", ["agent", "last_1h"], ["requests", "absent"]) with input.history as fresh
	text == "? of ?"
}

test_an_approver_tires_by_load_or_by_habit if {
	limits := {"decisions_1h": 10, "approval_streak": 20}
	people := {"status": "fresh", "approvers": {
		"a": {"last_1h": {"decisions": 11}, "last_24h": {"approval_streak": 0}},
		"b": {"last_1h": {"decisions": 1}, "last_24h": {"approval_streak": 21}},
		"c": {"last_1h": {"decisions": 10}, "last_24h": {"approval_streak": 20}},
		"d": {},
	}}
	tired := {id | some id in history.approvers; history.tired(id, limits)} with input.history as people
	tired == {"a", "b"}
}
