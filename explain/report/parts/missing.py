"""What of an audit has no data."""

from explain.report.schema.evidence import Evidence


def missing_of(evidence: Evidence) -> tuple[str, ...]:
    """Parts of an audit that have no data; they are printed as not evaluated, in this order."""
    measured, failures = evidence.measured, evidence.failures
    metrics = {cell.metric for cell in measured.cells if cell.method is not None} if measured else set()
    there = {
        "decision": bool(evidence.decision.judged),
        "intended_use": all(one.text for one in evidence.scope),
        "rates": bool(evidence.good_classes),
        "faithfulness": bool(metrics & {"gain", "insertion", "deletion"}),
        "planted": evidence.dissociation is not None,
        "agreement": measured is not None and bool(measured.agreements),
        "failure_review": not failures.wrong or failures.reviewed > 0,
        "robustness": bool(evidence.disturbed) or any(metric.startswith("drift_") for metric in metrics),
        "operation": all(one.text for one in evidence.operation),
        "signature": all(stamp.name for stamp in evidence.control.stamps),
    }
    return tuple(name for name, found in there.items() if not found)
