# May the agent act? In the shape that Gantral takes, nothing more and nothing less.
#
#                          LOW             MEDIUM          HIGH
#   history not usable     REQUIRE_HUMAN   REQUIRE_HUMAN   DENY
#   suspended              DENY            DENY            DENY
#   significantly worse    REQUIRE_HUMAN   DENY            DENY
#   too fast, or unknown   REQUIRE_HUMAN   REQUIRE_HUMAN   REQUIRE_HUMAN
#   too little known       ALLOW           REQUIRE_HUMAN   REQUIRE_HUMAN
#   a clear record         ALLOW           ALLOW           REQUIRE_HUMAN
package gantral.authority

import rego.v1

import data.gantral.limits
import data.gantral.roles
import data.gantral.timeouts
import data.lib.history

decision := {
	"decision": verdict,
	"approver_roles": approver_roles,
	"timeout": timeout,
	"escalation_roles": escalation_roles,
}

# Why, for humans. It stands at a path of its own, since Gantral refuses unknown fields.
reasons := sort(denials | doubts) if count(denials | doubts) > 0

else := ["the agent's record is clear"] if cleared

else := ["nothing speaks against it, and too little for it"]

# An unknown materiality is the highest.
default materiality := "HIGH"

materiality := input.instance.materiality if input.instance.materiality in {"LOW", "MEDIUM"}

# INVARIANT: ALLOW needs `cleared`, every line of which is undefined when history is missing, stale or silent.
default verdict := "REQUIRE_HUMAN"

verdict := "DENY" if {
	count(denials) > 0
} else := "ALLOW" if {
	count(doubts) == 0
	cleared
}

cleared if {
	history.usable
	history.known("agent")
	history.asked("agent", "enough_runs")
	history.asked("agent", "enough_decisions")
	unhurried
	enough_known
}

unhurried if {
	history.at_most("agent", "last_1h", "requests", limits.requests_1h)
	history.at_most("agent", "last_1h", "requests_burst_5m", limits.requests_burst_5m)
}

enough_known if materiality == "LOW"

enough_known if {
	materiality == "MEDIUM"
	history.clear("agent", "failed_significantly", "enough_runs")
}

enough_known if {
	materiality == "MEDIUM"
	history.clear("agent", "rejected_significantly", "enough_decisions")
}

significant contains text if {
	history.raised("agent", "failed_significantly")
	text := history.reason(
		"it failed significantly: %v of %v runs in the last 24 h",
		["agent", "last_24h"], ["failures", "attempts"],
	)
}

significant contains text if {
	history.raised("agent", "rejected_significantly")
	text := history.reason(
		"humans rejected it significantly: %v of %v requests in the last 7 days",
		["agent", "last_7d"], ["rejections", "human_decisions"],
	)
}

denials contains "authority is suspended" if history.suspended

denials contains text if {
	materiality != "LOW"
	some text in significant
}

denials contains text if {
	materiality == "HIGH"
	not history.usable
	some text in history.problems
}

doubts contains text if some text in significant

doubts contains text if some text in history.problems

doubts contains "the materiality is high" if materiality == "HIGH"

doubts contains "nothing is known of the agent" if {
	history.usable
	not history.known("agent")
}

doubts contains text if {
	history.above("agent", "last_1h", "requests", limits.requests_1h)
	text := history.reason("it asked %v times in the last hour", ["agent", "last_1h"], ["requests"])
}

doubts contains text if {
	history.above("agent", "last_1h", "requests_burst_5m", limits.requests_burst_5m)
	text := history.reason(
		"it asked %v times within 5 minutes of the last hour",
		["agent", "last_1h"], ["requests_burst_5m"],
	)
}

doubts contains "too few runs and too few human decisions are known of it" if {
	materiality == "MEDIUM"
	history.open("agent", "enough_runs")
	history.open("agent", "enough_decisions")
}

# Who decides: the usual approvers, or, when every one of those who could is tired, whom it would escalate to.
tired if {
	count(history.approvers) > 0
	every id in history.approvers {
		history.tired(id, limits.approver)
	}
}

default approver_roles := []

approver_roles := roles[materiality].escalation if {
	verdict == "REQUIRE_HUMAN"
	tired
} else := roles[materiality].approvers if {
	verdict == "REQUIRE_HUMAN"
}

default escalation_roles := []

escalation_roles := roles[materiality].escalation if verdict == "REQUIRE_HUMAN"

default timeout := "0s"

timeout := timeouts[materiality] if verdict == "REQUIRE_HUMAN"
