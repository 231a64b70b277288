"""Every metric name that Overspill exports or reads, with its labels.

Conventions: https://prometheus.io/docs/practices/naming/ (base units, ``_total``).
A service is labelled ``service_namespace`` and ``service_name``: plain ``namespace``
and ``service`` would clash with the labels that a scrape adds.
"""

SERVICE_LABELS = ("service_namespace", "service_name")

# Gateway: one sample per request. destination is "local" or the provider's "namespace/name".
REQUESTS = "overspill_requests_total"  # SERVICE_LABELS, destination, reason, code
FAILED_ATTEMPTS = "overspill_failed_attempts_total"  # SERVICE_LABELS, destination, reason
TOKENS = "overspill_tokens_total"  # SERVICE_LABELS, destination, kind = input | cached | output
COST = "overspill_cost_dollars_total"  # SERVICE_LABELS, destination
WITHIN_OBJECTIVE = "overspill_requests_within_objective_total"  # SERVICE_LABELS
# Gateway: what is offered to a service, wherever it is answered in the end.
ARRIVALS = "overspill_arrivals_total"  # SERVICE_LABELS
TTFT = "overspill_time_to_first_token_seconds"  # SERVICE_LABELS, destination
ITL = "overspill_inter_token_latency_seconds"  # SERVICE_LABELS, destination
QUEUE_WAIT = "overspill_queue_wait_seconds"  # SERVICE_LABELS
DURATION = "overspill_request_duration_seconds"  # SERVICE_LABELS, destination
QUEUED = "overspill_queued_requests"  # SERVICE_LABELS; waiting in the gateway
IN_FLIGHT = "overspill_in_flight_requests"  # SERVICE_LABELS, destination
READY_REPLICAS = "overspill_gateway_ready_replicas"  # SERVICE_LABELS; as the gateway sees them
SLOTS = "overspill_gateway_slots"  # SERVICE_LABELS; its part of what replicas compute at a time
# Gateway: of all services together.
REQUEST_MEMORY = "overspill_gateway_request_memory_bytes"

# Operator
RECONCILES = "overspill_reconciles_total"  # kind, result = ok | conflict | error
RECONCILE_SECONDS = "overspill_reconcile_duration_seconds"  # kind
WRITES = "overspill_writes_total"  # kind, verb
CONFLICTS = "overspill_write_conflicts_total"  # kind
DIRTY_KEYS = "overspill_dirty_keys"  # keys that wait for a worker
LEADER = "overspill_leader"  # 1 while this operator holds the lease
DESIRED_REPLICAS = "overspill_desired_replicas"  # SERVICE_LABELS
SCALING_ACTIVE = "overspill_scaling_active"  # SERVICE_LABELS; 1 while its signals are there
DECISIONS = "overspill_scaling_decisions_total"  # SERVICE_LABELS, reason
# Money of providers. account is provider/ or service/ and "namespace/name", or key/ and its Secret.
BUDGET = "overspill_budget_dollars"  # account, window = hour | day | month
BUDGET_CHARGED = "overspill_budget_charged_dollars"  # account, window; what gateways hold, too
LEDGER_WRITABLE = "overspill_ledger_writable"  # 0 while no money can be given out
GPU_SECONDS = "overspill_accelerator_seconds_total"  # SERVICE_LABELS; placed replicas x devices
GPU_COST = "overspill_accelerator_cost_dollars_total"  # SERVICE_LABELS; those at cost.gpuHour

# What of the last 24 hours the operator reckons, as in status.cost; side = own | cloud | all
COST_RATE = "overspill_spending_dollars_per_hour"  # SERVICE_LABELS; of the last hour
PER_MILLION = "overspill_dollars_per_million_tokens"  # SERVICE_LABELS, side
SAVED = "overspill_saved_dollars"  # SERVICE_LABELS; against all of it at the first provider
BREAK_EVEN = "overspill_break_even_tokens_per_second"  # SERVICE_LABELS; of one replica

# The engines' own, read by the autoscaler; the scrape adds SERVICE_LABELS from the pod's labels.
# llama.cpp exports no use of its KV cache.
LLAMACPP_RUNNING = "llamacpp:requests_processing"
LLAMACPP_WAITING = "llamacpp:requests_deferred"
VLLM_RUNNING = "vllm:num_requests_running"  # engine: one series per data-parallel rank
VLLM_WAITING = "vllm:num_requests_waiting"  # engine
VLLM_KV_USAGE = "vllm:kv_cache_usage_perc"  # engine; 0 to 1, whatever its name says
VLLM_KV_USAGE_OLD = "vllm:gpu_cache_usage_perc"  # the same, in older versions

# Buckets in seconds. TTFT and ITL follow the OpenTelemetry GenAI conventions:
# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/
TTFT_BUCKETS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
ITL_BUCKETS = (
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
)  # fmt: skip
WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0, 120.0)
DURATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0)
