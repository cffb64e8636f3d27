"""Run as a script in the serving environment: what vLLM makes of a checkpoint. Arguments: directory, prompt, dtype."""

import json
import os
import sys

if __name__ == "__main__":  # vLLM starts processes that import this file
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM, SamplingParams

    model = LLM(sys.argv[1], dtype=sys.argv[3], max_model_len=256, enforce_eager=True)
    (answer,) = model.generate([sys.argv[2]], SamplingParams(temperature=0, max_tokens=24))
    sys.stdout.write("ANSWER" + json.dumps(list(answer.outputs[0].token_ids)) + "\n")
    sys.stdout.flush()
