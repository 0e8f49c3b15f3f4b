# Reading history so that a policy fails closed.
#
# A signal without a value is absent, and in Rego whatever touches something absent is undefined: `not x.raised` is then
# TRUE, which opens the door. So every question here comes in two forms that are both false when history says nothing:
# `raised` and `clear`. Allow only on `clear`, on `at_most` or on `known`; never on `not raised`.
package lib.history

import rego.v1

# The one place that knows where history stands in the input.
import input.history as document

# History can be relied on: there, computed from everything the engine has learned, nothing suspended.
usable if {
	fresh
	document.suspended == false
}

fresh if document.status == "fresh"

suspended if document.suspended == true

# The entity has an event within retention; false for an id that is missing or was never seen.
known(entity) if {
	fresh
	document[entity].known == true
}

# The window lies wholly within observed history.
complete(entity, window) if {
	fresh
	document[entity][window].complete == true
}

# A number that is there: signal(`agent`, `last_24h`, `failures`).
signal(entity, window, name) := value if {
	fresh
	value := document[entity][window][name]
	is_number(value)
}

# The number is there and not above the limit. No number, or no limit: false.
at_most(entity, window, name, limit) if {
	is_number(limit)
	signal(entity, window, name) <= limit
}

# The number is there and above the limit: something to say to a human, nothing to allow on.
above(entity, window, name, limit) if {
	is_number(limit)
	signal(entity, window, name) > limit
}

# What an entity's actions in flight would move, together, in minor units of a currency: 0 when none would move any.
# Undefined when nobody can say it, and when there is an amount without a currency among them, which may be any.
in_flight(entity, currency) := amount if {
	fresh
	amounts := document[entity].in_flight.declared_amount_minor_by_currency
	object.get(amounts, "", 0) == 0
	amount := object.get(amounts, currency, 0)
}

# A yes-or-no question of a derived set, such as `failed_significantly`, with the companion that tells whether there was
# enough to answer it (`enough_runs`).
raised(entity, question) if {
	fresh
	document[entity][question] == true
}

clear(entity, question, companion) if {
	fresh
	document[entity][companion] == true
	document[entity][question] == false
}

# The question was asked at all: its companion is there. Without it the live catalog has no such set.
asked(entity, companion) if {
	fresh
	is_boolean(document[entity][companion])
}

# There was not enough to answer.
open(entity, companion) if {
	fresh
	document[entity][companion] == false
}

# The ids of the request's approvers, of whom history knows the load.
approvers contains id if {
	fresh
	some id, _ in document.approvers
}

# An approver under load: more answers in the last hour than a human can weigh, or an unbroken row of approvals.
tired(id, limits) if {
	fresh
	document.approvers[id].last_1h.decisions > limits.decisions_1h
}

tired(id, limits) if {
	fresh
	document.approvers[id].last_24h.approval_streak > limits.approval_streak
}

# Why history can't be relied on, for humans; empty when it can.
problems contains "history is missing from the input" if not document.status

problems contains sprintf("history is %v", [document.status]) if document.status != "fresh"

problems contains "authority is suspended" if suspended

problems contains "history does not say whether authority is suspended" if {
	fresh
	not suspension_told
}

# A rule of its own, for `not is_boolean(x.absent)` is undefined, not true: the argument is looked up outside the `not`.
suspension_told if is_boolean(document.suspended)

# A sentence with numbers in it: reason("%v of %v runs failed", ["agent", "last_24h"], ["failures", "attempts"]).
# When one of them is not there, all read `?`.
reason(format, at, names) := sprintf(format, _numbers(at, names)) if count(_numbers(at, names)) == count(names)

reason(format, at, names) := replace(format, "%v", "?") if count(_numbers(at, names)) < count(names)

_numbers(at, names) := [value |
	some name in names
	value := object.get(document, array.concat(at, [name]), null)
	is_number(value)
]
