"""What can be had without looking: rows that stand in every table of results."""

from __future__ import annotations

from collections.abc import Sequence

from timer1lib.data.bias import blind_answers, usable
from timer1lib.schema import Prediction, Sample

WHOLE_VIDEO = "whole video"


def baseline_predictions(samples: Sequence[Sample], train: Sequence[Sample] | None = None) -> dict[str, list[Prediction]]:
    """Predictions of each baseline.

    `whole video` answers everything; `window prior` the one relative window that does best on the training split;
    `query words + prior` the window that the query's words and the video's length suggest, fitted there too. A sample
    without a duration or a window gets no answer.

    Args:
        train: training samples. None or none usable: the priors are fitted on the other videos of `samples` (5 folds).
    """
    asked = usable(samples)
    if not asked:
        return {WHOLE_VIDEO: []}
    fitted = train if train and usable(train) else None
    answers = blind_answers(asked, fitted)
    return {
        name: [Prediction(s.id, float(start), float(end), model=name) for s, (start, end) in zip(asked, spans, strict=True)]
        for name, spans in answers.items()
    }
