"""Again: the evidence of a report gathered from its run a second time, without computing or writing anything there."""

from pathlib import Path

from explain.criteria import Declaration, parse_criteria
from explain.errors import IntegrityError
from explain.report.content import gather
from explain.report.panels import finished_panels
from explain.report.schema.evidence import Evidence
from explain.report.write import open_pair, stated_for


def gather_again(evidence: Evidence, run: str | Path, audit: str | Path | None = None) -> Evidence:
    """What the run says today, in the language, length and scale of a report.

    Args:
        evidence: of the report.
        run: folder of the pair or study.
        audit: YAML file of what people stated, where it is not in the run's folder.

    Raises:
        IntegrityError: files of the run changed, or the maps of the report are not there.
        InputError: no pair.
    """
    pair = open_pair(run)
    panels = finished_panels(pair, evidence.panels.per_rule)
    if panels is None:
        raise IntegrityError(f"the maps of this report are not in {pair.path / 'maps'} any more; `explain report "
                             f"{run} --per-rule {evidence.panels.per_rule}` makes them, then verify again")  # fmt: skip
    said, declaration = evidence.decision, pair.declaration
    late: Declaration | None = None
    if said.declared == "after":
        late = parse_criteria(said.criteria_text.encode(), "the criteria in the report")
    return gather(
        pair, panels, evidence.lang, length=evidence.length, scope=evidence.panels.scope,
        declaration=declaration or late, before=declaration is not None, audit=stated_for(pair, audit),
    )  # fmt: skip
