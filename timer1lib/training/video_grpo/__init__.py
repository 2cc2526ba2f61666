"""GRPO on videos with `trl.GRPOTrainer`: one prompt, one tower pass, one decode a group.

    trainer = VideoGRPOTrainer(model, reward_funcs, args=VideoGRPOConfig(...), train_dataset=rows,
                               processing_class=processor, encode_prompt=encode)

`encode` turns a row into the processor's output for its prompt (see `encoded.EncodePrompt`).
"""

from timer1lib.training.video_grpo.config import VideoGRPOConfig
from timer1lib.training.video_grpo.resume import resume_point
from timer1lib.training.video_grpo.trainer import VideoGRPOTrainer

__all__ = ["VideoGRPOConfig", "VideoGRPOTrainer", "resume_point"]
