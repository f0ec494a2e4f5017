from rein.v1 import annotations_pb2 as _annotations_pb2
from rein.v1 import job_pb2 as _job_pb2
from rein.v1 import policy_pb2 as _policy_pb2
from rein.v1 import weights_pb2 as _weights_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TrainerRank(_message.Message):
    __slots__ = ("rank", "size", "rendezvous")
    RANK_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    RENDEZVOUS_FIELD_NUMBER: _ClassVar[int]
    rank: int
    size: int
    rendezvous: str
    def __init__(self, rank: _Optional[int] = ..., size: _Optional[int] = ..., rendezvous: _Optional[str] = ...) -> None: ...

class LoadTrainerRequest(_message.Message):
    __slots__ = ("fence", "job", "lineage", "checkpoint_path", "rank")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    LINEAGE_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_PATH_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    job: _job_pb2.JobConfig
    lineage: int
    checkpoint_path: str
    rank: TrainerRank
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ..., job: _Optional[_Union[_job_pb2.JobConfig, _Mapping]] = ..., lineage: _Optional[int] = ..., checkpoint_path: _Optional[str] = ..., rank: _Optional[_Union[TrainerRank, _Mapping]] = ...) -> None: ...

class LoadTrainerReply(_message.Message):
    __slots__ = ("parameters", "version", "digest", "controller_state")
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_STATE_FIELD_NUMBER: _ClassVar[int]
    parameters: int
    version: _policy_pb2.PolicyVersion
    digest: int
    controller_state: bytes
    def __init__(self, parameters: _Optional[int] = ..., version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., digest: _Optional[int] = ..., controller_state: _Optional[bytes] = ...) -> None: ...

class TrainingSequence(_message.Message):
    __slots__ = ("token_ids", "loss_mask", "behaviour_logprobs", "reference_logprobs", "group", "reward", "id", "truncated", "reward_parts", "greedy_reward")
    TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    LOSS_MASK_FIELD_NUMBER: _ClassVar[int]
    BEHAVIOUR_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    REWARD_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    REWARD_PARTS_FIELD_NUMBER: _ClassVar[int]
    GREEDY_REWARD_FIELD_NUMBER: _ClassVar[int]
    token_ids: _containers.RepeatedScalarFieldContainer[int]
    loss_mask: bytes
    behaviour_logprobs: _containers.RepeatedScalarFieldContainer[float]
    reference_logprobs: _containers.RepeatedScalarFieldContainer[float]
    group: int
    reward: float
    id: str
    truncated: bool
    reward_parts: _containers.RepeatedScalarFieldContainer[float]
    greedy_reward: float
    def __init__(self, token_ids: _Optional[_Iterable[int]] = ..., loss_mask: _Optional[bytes] = ..., behaviour_logprobs: _Optional[_Iterable[float]] = ..., reference_logprobs: _Optional[_Iterable[float]] = ..., group: _Optional[int] = ..., reward: _Optional[float] = ..., id: _Optional[str] = ..., truncated: _Optional[bool] = ..., reward_parts: _Optional[_Iterable[float]] = ..., greedy_reward: _Optional[float] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("fence", "update", "sequences")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    update: int
    sequences: _containers.RepeatedCompositeFieldContainer[TrainingSequence]
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ..., update: _Optional[int] = ..., sequences: _Optional[_Iterable[_Union[TrainingSequence, _Mapping]]] = ...) -> None: ...

class Metric(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: float
    def __init__(self, name: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...

class UpdateReply(_message.Message):
    __slots__ = ("version", "digest", "advantages", "metrics")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ADVANTAGES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    version: _policy_pb2.PolicyVersion
    digest: int
    advantages: _containers.RepeatedScalarFieldContainer[float]
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    def __init__(self, version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., digest: _Optional[int] = ..., advantages: _Optional[_Iterable[float]] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ...) -> None: ...

class ForwardBackwardRequest(_message.Message):
    __slots__ = ("fence", "sequences")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    sequences: _containers.RepeatedCompositeFieldContainer[TrainingSequence]
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ..., sequences: _Optional[_Iterable[_Union[TrainingSequence, _Mapping]]] = ...) -> None: ...

class ForwardBackwardReply(_message.Message):
    __slots__ = ("metrics", "logprobs")
    METRICS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    logprobs: _containers.RepeatedCompositeFieldContainer[SequenceLogprobs]
    def __init__(self, metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ..., logprobs: _Optional[_Iterable[_Union[SequenceLogprobs, _Mapping]]] = ...) -> None: ...

class SequenceLogprobs(_message.Message):
    __slots__ = ("logprobs",)
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, logprobs: _Optional[_Iterable[float]] = ...) -> None: ...

class OptimStepRequest(_message.Message):
    __slots__ = ("fence", "learning_rate")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    learning_rate: float
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ..., learning_rate: _Optional[float] = ...) -> None: ...

class OptimStepReply(_message.Message):
    __slots__ = ("version", "digest", "metrics")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    version: _policy_pb2.PolicyVersion
    digest: int
    metrics: _containers.RepeatedCompositeFieldContainer[Metric]
    def __init__(self, version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., digest: _Optional[int] = ..., metrics: _Optional[_Iterable[_Union[Metric, _Mapping]]] = ...) -> None: ...

class PublishRequest(_message.Message):
    __slots__ = ("fence", "version", "receivers", "transport", "deadline_seconds", "in_flight")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RECEIVERS_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    version: _policy_pb2.PolicyVersion
    receivers: _containers.RepeatedCompositeFieldContainer[_weights_pb2.WeightReceiver]
    transport: _weights_pb2.WeightTransport
    deadline_seconds: float
    in_flight: _weights_pb2.InFlightPolicy
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ..., version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., receivers: _Optional[_Iterable[_Union[_weights_pb2.WeightReceiver, _Mapping]]] = ..., transport: _Optional[_Union[_weights_pb2.WeightTransport, str]] = ..., deadline_seconds: _Optional[float] = ..., in_flight: _Optional[_Union[_weights_pb2.InFlightPolicy, str]] = ...) -> None: ...

class PublishOutcome(_message.Message):
    __slots__ = ("name", "error")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    name: str
    error: str
    def __init__(self, name: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class PublishReply(_message.Message):
    __slots__ = ("version", "digest", "outcomes", "bytes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    version: _policy_pb2.PolicyVersion
    digest: int
    outcomes: _containers.RepeatedCompositeFieldContainer[PublishOutcome]
    bytes: int
    def __init__(self, version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., digest: _Optional[int] = ..., outcomes: _Optional[_Iterable[_Union[PublishOutcome, _Mapping]]] = ..., bytes: _Optional[int] = ...) -> None: ...

class SaveRequest(_message.Message):
    __slots__ = ("fence", "path", "controller_state", "export_only")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_STATE_FIELD_NUMBER: _ClassVar[int]
    EXPORT_ONLY_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    path: str
    controller_state: bytes
    export_only: bool
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ..., path: _Optional[str] = ..., controller_state: _Optional[bytes] = ..., export_only: _Optional[bool] = ...) -> None: ...

class SaveReply(_message.Message):
    __slots__ = ("version", "bytes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    version: _policy_pb2.PolicyVersion
    bytes: int
    def __init__(self, version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., bytes: _Optional[int] = ...) -> None: ...

class ScorePolicyRequest(_message.Message):
    __slots__ = ("sequences",)
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedCompositeFieldContainer[TrainingSequence]
    def __init__(self, sequences: _Optional[_Iterable[_Union[TrainingSequence, _Mapping]]] = ...) -> None: ...

class ScorePolicyReply(_message.Message):
    __slots__ = ("sequences", "version")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedCompositeFieldContainer[SequenceLogprobs]
    version: _policy_pb2.PolicyVersion
    def __init__(self, sequences: _Optional[_Iterable[_Union[SequenceLogprobs, _Mapping]]] = ..., version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ...) -> None: ...

class TrainerStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TrainerStatusReply(_message.Message):
    __slots__ = ("job", "version", "digest", "last_request_id")
    JOB_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LAST_REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    job: str
    version: _policy_pb2.PolicyVersion
    digest: int
    last_request_id: str
    def __init__(self, job: _Optional[str] = ..., version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., digest: _Optional[int] = ..., last_request_id: _Optional[str] = ...) -> None: ...
