"""GRPO on videos with `trl.GRPOTrainer`: one prompt, one tower pass, one decode a group.

    trainer = VideoGRPOTrainer(model, reward_funcs, args=VideoGRPOConfig(...), train_dataset=rows,
                               processing_class=processor, encode_prompt=encode)

`VideoGRPOTrainer` is in `trainer`, its options are in `config`. `encode` turns a row into the processor's output for its
prompt (see `encoded.EncodePrompt`).
"""
