# May the agent move this much more today? What it has moved, what it was allowed to move and has not yet, and what it
# asks for now stay within the limit together, however many ask at once.
package spend

import rego.v1

import data.lib.history
import data.spend.limits

default decision := {"decision": "REQUIRE_HUMAN"}

decision := {"decision": "ALLOW"} if {
	history.usable
	asked := input.context.attributes
	asked.amount_minor >= 0
	asked.currency == "EUR"
	moved := history.signal("agent", "last_24h", "amount_eur_minor")
	(moved + history.in_flight("agent", "EUR")) + asked.amount_minor <= limits.eur_minor_24h
}
