"""Annotations: what stands between a published file and the samples that are trained on.

readers/      a file of any known format -> samples
audit         every flaw of the samples: `findings` (what can be wrong), `checks` (rows), `video_checks` (their files)
difficulty    how hard a model finds each sample; `selection` (which are trained on), `schedules` (in which epoch)
bias          what a model that never looks would score; `quality`; `notes` that a person left
coldstart     what SFT imitates; `toldtimes` (the times that its answers may name)
"""
