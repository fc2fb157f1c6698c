"""Judgements for whoever reads them: JUnit XML for the CI, Markdown for its summary."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from advbench.compare.show import printable
from advbench.gate.judge import Judgement, together

MARKS = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "❔"}


def junit(judgements: Sequence[Judgement]) -> bytes:
    """A suite a pair, a case a limit. INCONCLUSIVE is `skipped`: the format has no better word."""
    root = ET.Element("testsuites", name="advbench check")
    for judgement in judgements:
        verdicts = [limit.verdict for limit in judgement.limits]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=printable(judgement.new),
            tests=str(len(verdicts)),
            failures=str(verdicts.count("FAIL")),
            errors="0",
            skipped=str(verdicts.count("INCONCLUSIVE")),
        )
        for limit in judgement.limits:
            case = ET.SubElement(suite, "testcase", classname=printable(judgement.new), name=limit.name, time="0")
            text = printable(limit.said)
            if limit.verdict != "PASS":
                ET.SubElement(case, "failure" if limit.verdict == "FAIL" else "skipped", message=text)
            ET.SubElement(case, "system-out").text = "\n".join(map(printable, (limit.said, *limit.advice)))
    return ET.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def markdown(judgements: Sequence[Judgement]) -> str:
    """A heading with the verdict, then a table a pair."""
    verdict = together([judgement.verdict for judgement in judgements])
    lines = [f"## {MARKS[verdict]} advbench check: {verdict}", ""]
    for judgement in judgements:
        lines += [f"**{_escaped(judgement.new)}** against {_escaped(judgement.old)}, about {judgement.about}", ""]
        lines += ["| limit | verdict | |", "| --- | --- | --- |"]
        for limit in judgement.limits:
            said = "<br>".join(_escaped(text) for text in (limit.said, *limit.advice))
            lines.append(f"| {limit.name} | {MARKS[limit.verdict]} {limit.verdict} | {said} |")
        lines += ["", *(f"* {_escaped(remark)}" for remark in judgement.remarks), ""]
    return "\n".join(lines).rstrip() + "\n"


def _escaped(text: str) -> str:
    """As text: a label may hold what Markdown or HTML would read as more."""
    return "".join(f"\\{c}" if c in "\\`*_[]|~#!" else {"<": "&lt;", "&": "&amp;"}.get(c, c) for c in printable(text))
