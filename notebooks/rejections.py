"""When do humans stop trusting an agent? The real Gantral history, one signal over time.

A marimo notebook: `marimo edit notebooks/rejections.py` opens it, `python notebooks/rejections.py` runs it.
"""

import marimo

app = marimo.App(width="medium")


@app.cell
def _():
    import time
    from collections import Counter
    from pathlib import Path

    import altair as alt
    import marimo as mo
    import polars as pl

    from enrich import Engine
    from enrich.sources import load_sample, stretch

    return Counter, Engine, Path, alt, load_sample, mo, pl, stretch, time


@app.cell
def _(mo):
    mo.md("""
    # When do humans stop trusting an agent?

    The sample holds what a real Gantral wrote while 48 agents asked for authority: what its policy let through, what it
    sent to humans, and what the humans said. It holds no run outcomes, so "failure" here is a human's **rejection**.

    **The time axis is not real.** The recording spans seven minutes. It is stretched by 2000, to about nine days, and
    moved so that it ends now. Order and counts are real; dates and distances are not.

    *Why marimo:* a notebook is plain Python, so a diff can be read, the suite runs it as a script, and no cell can show
    a result that its code does not give.
    """)
    return


@app.cell
def _(Engine, Path, load_sample, stretch, time):
    root = Path(__file__).parents[1]
    engine = Engine.open(queries=root / "queries")
    end_us = time.time_ns() // 3_600_000_000_000 * 3_600_000_000
    events = stretch(load_sample().events, 2000, end_us=end_us)
    recorded = engine.record(events)
    return end_us, engine, events, recorded


@app.cell
def _(Counter, events, mo, pl, recorded):
    _outcomes = Counter(e["outcome"] for e in events)
    _meaning = {
        "allowed": "the policy let it through",
        "required_human": "the policy sent it to a human",
        "approved": "a human said yes",
        "overridden": "a human said yes, with changes",
        "rejected": "a human said no",
        "timed_out": "no human answered in time",
    }
    mo.vstack(
        [
            mo.md(f"## What was recorded\n\n{recorded.accepted} events, {recorded.rejected_count} refused."),
            pl.DataFrame(
                [{"outcome": o, "events": n, "meaning": _meaning[o]} for o, n in _outcomes.most_common()],
                schema={"outcome": pl.String, "events": pl.Int64, "meaning": pl.String},
            ),
        ]
    )
    return


@app.cell
def _(Counter, end_us, engine, events, pl):
    _asked = Counter(e["agent_id"] for e in events if e.get("agent_id"))
    _rows = []
    for _agent in _asked:
        _history = engine.context(
            {"agent": _agent},
            as_of=end_us,
            select=[
                "agent.last_7d.human_decisions",
                "agent.last_7d.rejections",
                "agent.last_7d.rejection_rate",
                "agent.last_7d.rejection_rate_low",
                "agent.enough_decisions",
                "agent.rejected_significantly",
            ],
        )["agent"]
        _week = _history["last_7d"]
        _rows.append(
            {
                "agent": _agent,
                "answers": _week["human_decisions"],
                "rejections": _week["rejections"],
                "rate": _week.get("rejection_rate"),
                "at least": _week.get("rejection_rate_low"),
                "enough": _history["enough_decisions"],
                "significant": _history.get("rejected_significantly"),
            }
        )
    agents = pl.DataFrame(
        _rows,
        schema={
            "agent": pl.String,
            "answers": pl.Int64,
            "rejections": pl.Int64,
            "rate": pl.Float64,
            "at least": pl.Float64,
            "enough": pl.Boolean,
            "significant": pl.Boolean,
        },
    ).sort("at least", descending=True, nulls_last=True)
    return (agents,)


@app.cell
def _(agents, mo, pl):
    _plain = agents.filter(pl.col("rate") > 0.15)
    _named = agents.filter(pl.col("significant").fill_null(value=False))
    mo.vstack(
        [
            mo.md(f"""
            ## Who is rejected significantly?

            A plain rule, "more than 15 % rejected in the last 7 days", names **{len(_plain)} of {len(agents)}** agents.
            `rejected_significantly` names **{len(_named)}**: those whose rate is above 15 %, or above their own earlier
            rate, by more than chance explains.
            """),
            agents.filter(pl.col("answers") > 0).head(15),
        ]
    )
    return


@app.cell
def _(agents, end_us, engine, pl):
    _worst = agents.filter(pl.col("significant").fill_null(value=False))["agent"].to_list()[:3]
    _unlucky = agents.filter(pl.col("significant").eq(other=False) & (pl.col("rate") > 0.15))
    shown = [*_worst, *_unlucky.sort("answers", descending=True)["agent"].to_list()[:1]]
    _hour = 3_600_000_000
    _rows = []
    for _agent in shown:
        for _back in range(9 * 24, -1, -2):
            _history = engine.context({"agent": _agent}, as_of=end_us - _back * _hour, select=["agent.*"])["agent"]
            _week = _history["last_7d"]
            if _week["human_decisions"] == 0:
                continue
            _state = {None: "too few answers", True: "significant", False: "in order"}
            _rows.append(
                {
                    "agent": _agent,
                    "days": -_back / 24,
                    "rate": _week["rejection_rate"],
                    "answers": _week["human_decisions"],
                    "state": _state[_history.get("rejected_significantly")],
                }
            )
    course = pl.DataFrame(
        _rows,
        schema={
            "agent": pl.String, "days": pl.Float64, "rate": pl.Float64, "answers": pl.Int64, "state": pl.String,
        },
    )  # fmt: skip
    return course, shown


@app.cell
def _(alt, course, shown):
    _x = alt.X("days:Q", title="days before the end (stretched time)", scale=alt.Scale(domain=[-9, 0]))
    _y = alt.Y("rate:Q", title="rejected, last 7 days", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1]))
    _states = alt.Color(
        "state:N",
        title="rejected_significantly",
        scale=alt.Scale(
            domain=["too few answers", "in order", "significant"], range=["#b8b8b8", "#2166ac", "#b2182b"]
        ),
        legend=alt.Legend(orient="top"),
    )
    _base = alt.Chart(course)
    _line = _base.mark_line(color="#d0d0d0", strokeWidth=1).encode(_x, _y)
    _points = _base.mark_point(filled=True, opacity=1).encode(
        _x,
        _y,
        _states,
        size=alt.Size("answers:Q", title="answers in the window", scale=alt.Scale(range=[10, 60]),
                      legend=alt.Legend(orient="top", values=[5, 20, 40])),
        tooltip=["days", alt.Tooltip("rate", format=".1%"), "answers", "state"],
    )  # fmt: skip
    _limit = _base.mark_rule(color="#555555", strokeDash=[5, 4]).encode(y=alt.datum(0.15))
    chart = (
        alt.layer(_line, _limit, _points)
        .properties(width=330, height=150)
        .facet(
            facet=alt.Facet(
                "agent:N", title=None, sort=shown, header=alt.Header(labelFontSize=13, labelFontWeight="bold")
            ),
            columns=2,
        )
        .properties(title="Share of requests that humans rejected; dashed: the tolerated 15 %")
        .configure_axis(gridColor="#eeeeee", labelFontSize=11, titleFontSize=11, titleFontWeight="normal")
        .configure_legend(labelFontSize=11, titleFontSize=11)
    )
    chart  # noqa: B018 - a cell shows its last expression
    return (chart,)


@app.cell
def _(mo):
    mo.md("""
    ## How to read it

    Each point is what a policy would have read at that moment. Grey: fewer than 10 answers, so the question has no
    answer, and the policy asks a human. Blue: nothing beyond chance. Red: significant.

    Points on the left may stand high and are grey all the same: two rejections among three answers are 67 % and mean
    little. An agent that was clean and turns bad crosses the line in blue first and becomes red when chance no longer
    explains it. The last panel is the busiest agent that only the plain rule still names. It was rejected significantly
    and has recovered: what is left above the line is no more than chance explains.
    """)
    return


@app.cell
def _(chart, engine):
    _ = chart  # last: the charts have what they need
    engine.close()
    return


if __name__ == "__main__":
    app.run()
