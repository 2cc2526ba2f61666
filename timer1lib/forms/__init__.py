"""How an answer is asked, written, read and held against its form: one object for all of it, by name or from a file."""

from timer1lib.forms.files import OwnForm, from_identity, load
from timer1lib.forms.form import FORMS, AnswerForm, Prompt
from timer1lib.forms.reading import MAX_CHARACTERS, READINGS, Reading

__all__ = ["FORMS", "MAX_CHARACTERS", "READINGS", "AnswerForm", "OwnForm", "Prompt", "Reading", "from_identity", "load"]
