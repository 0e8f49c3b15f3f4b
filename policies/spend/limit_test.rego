package spend_test

import rego.v1

import data.spend

# 600 EUR moved, 300 EUR in flight, 100 EUR asked for.
request := {
	"context": {"attributes": {"amount_minor": 10000, "currency": "EUR"}},
	"history": {
		"status": "fresh",
		"suspended": false,
		"agent": {
			"last_24h": {"amount_eur_minor": 60000},
			"in_flight": {"count": 2, "declared_amount_minor_by_currency": {"EUR": 30000, "USD": 1}},
		},
	},
}

with_in_flight(amounts) := json.patch(request, [{"op": "replace", "path": "/history/agent/in_flight/declared_amount_minor_by_currency", "value": amounts}])

allowed(document) if spend.decision.decision == "ALLOW" with input as document

test_to_the_last_cent if {
	allowed(request)
	not allowed(object.union(request, {"context": {"attributes": {"amount_minor": 10001}}}))
	allowed(with_in_flight({}))
}

test_what_is_in_flight_counts if {
	not allowed(with_in_flight({"EUR": 30001}))
	allowed(with_in_flight({"EUR": 30000, "USD": 99999}))
}

test_an_amount_in_flight_without_a_currency_may_be_any if not allowed(with_in_flight({"": 1}))

test_without_what_it_needs_a_human_decides if {
	every path in [
		"/history", "/history/status", "/history/agent/in_flight", "/history/agent/last_24h",
		"/history/agent/in_flight/declared_amount_minor_by_currency", "/context/attributes/amount_minor",
		"/context/attributes/currency",
	] {
		spend.decision == {"decision": "REQUIRE_HUMAN"} with input as json.remove(request, [path])
	}
}
