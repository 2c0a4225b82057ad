"""The real engine answers, in both modes, in its own dialect."""

import openai
import pytest
from support.transformers_serve import TransformersServe


@pytest.mark.engine
@pytest.mark.parametrize("mode", ["serial_engine", "batching_engine"])
def test_transformers_serve_streams_with_usage_on_its_finish_chunk(mode: str, request: pytest.FixtureRequest) -> None:
    engine: TransformersServe = request.getfixturevalue(mode)
    with openai.OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0) as client:
        chunks = list(
            client.chat.completions.create(
                model=engine.model,
                messages=[{"role": "user", "content": "def hello():"}],
                max_tokens=12,
                stream=True,
            )
        )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert not chunks[0].choices[0].delta.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    assert chunks[-1].choices[0].finish_reason == "length"
