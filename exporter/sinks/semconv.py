"""The names of everything on a span, in one place.

Followed are the OpenTelemetry GenAI conventions of semantic-conventions v1.41 (the last complete text before they moved
to a repository of their own) and the `gen_ai.latency.*` names that vLLM and SGLang share. Names that begin with
`inference.` are ours, for what no convention names. docs/spans.md describes each.
"""

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REASONING_OUTPUT_TOKENS = "gen_ai.usage.reasoning.output_tokens"

TTFT = "gen_ai.latency.time_to_first_token"
LATENCY = "gen_ai.latency.e2e"
QUEUEING = "gen_ai.latency.time_in_queue"
PREFILL = "gen_ai.latency.time_in_model_prefill"
DECODE = "gen_ai.latency.time_in_model_decode"
TPOT = "gen_ai.server.time_per_output_token"

FIRST_ANSWER = "inference.time_to_first_answer_token"
DECODE_TPS = "inference.decode_tps"
TPS = "inference.tps"
OUTCOME = "inference.outcome"
ESTIMATED = "inference.tokens.estimated"
STALLED = "inference.client.stalled_seconds"
REPORTED_QUEUE = "inference.engine.reported_queue_seconds"
PHASE_SOURCE = "inference.phase.source"

STATUS_CODE = "http.response.status_code"
ERROR_TYPE = "error.type"

ATTRIBUTES: tuple[str, ...] = (
    OPERATION,
    PROVIDER,
    REQUEST_MODEL,
    REQUEST_STREAM,
    RESPONSE_MODEL,
    RESPONSE_ID,
    FINISH_REASONS,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    CACHED_INPUT_TOKENS,
    REASONING_OUTPUT_TOKENS,
    TTFT,
    LATENCY,
    QUEUEING,
    PREFILL,
    DECODE,
    TPOT,
    FIRST_ANSWER,
    DECODE_TPS,
    TPS,
    OUTCOME,
    ESTIMATED,
    STALLED,
    REPORTED_QUEUE,
    PHASE_SOURCE,
    STATUS_CODE,
    ERROR_TYPE,
)
"""Every attribute that a span of ours may carry."""

FIRST_TOKEN_EVENT = "first_token"
QUEUEING_SPAN, PREFILL_SPAN, DECODE_SPAN = "queueing", "prefill", "decode"
