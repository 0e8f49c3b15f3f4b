package system

import rego.v1

main := {"got": input} if input.x
