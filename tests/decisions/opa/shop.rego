package shop

import rego.v1

default allow := false

allow if input.x > 3

object["k"] := 1 if input.x > 1

object["j"] := 2

numbered[7] := "seven" if true

numbered[input.key] := "given"

members contains m if some m in [3, 1, "two"]

undefined_rule if input.nothing_like_it

echo := input

has_input if input

is_null if input == null

conflict := 1 if input.c

conflict := 2 if input.d

number := to_number(input.t)

branch.leaf.value := 12

branch.other contains "x"

double(x) := x * 2

doubled := double(input.x)

price := data.shop.stock.price * 3
