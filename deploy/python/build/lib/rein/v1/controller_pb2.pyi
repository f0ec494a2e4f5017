from rein.v1 import annotations_pb2 as _annotations_pb2
from rein.v1 import job_pb2 as _job_pb2
from rein.v1 import policy_pb2 as _policy_pb2
from rein.v1 import trainer_pb2 as _trainer_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_STARTING: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_PAUSED: _ClassVar[JobState]
    JOB_STATE_SUCCEEDED: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_STARTING: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_PAUSED: JobState
JOB_STATE_SUCCEEDED: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState

class Job(_message.Message):
    __slots__ = ("name", "kind", "state", "update", "max_updates", "submitted_at", "ended_at", "message", "config_yaml", "config_hash", "config", "checkpoints", "metrics", "evals", "output", "owner", "disk_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    MAX_UPDATES_FIELD_NUMBER: _ClassVar[int]
    SUBMITTED_AT_FIELD_NUMBER: _ClassVar[int]
    ENDED_AT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CONFIG_YAML_FIELD_NUMBER: _ClassVar[int]
    CONFIG_HASH_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    EVALS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: str
    state: JobState
    update: int
    max_updates: int
    submitted_at: float
    ended_at: float
    message: str
    config_yaml: str
    config_hash: str
    config: _job_pb2.JobConfig
    checkpoints: _containers.RepeatedCompositeFieldContainer[Checkpoint]
    metrics: _containers.RepeatedCompositeFieldContainer[_trainer_pb2.Metric]
    evals: _containers.RepeatedCompositeFieldContainer[EvalResult]
    output: str
    owner: str
    disk_bytes: int
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., update: _Optional[int] = ..., max_updates: _Optional[int] = ..., submitted_at: _Optional[float] = ..., ended_at: _Optional[float] = ..., message: _Optional[str] = ..., config_yaml: _Optional[str] = ..., config_hash: _Optional[str] = ..., config: _Optional[_Union[_job_pb2.JobConfig, _Mapping]] = ..., checkpoints: _Optional[_Iterable[_Union[Checkpoint, _Mapping]]] = ..., metrics: _Optional[_Iterable[_Union[_trainer_pb2.Metric, _Mapping]]] = ..., evals: _Optional[_Iterable[_Union[EvalResult, _Mapping]]] = ..., output: _Optional[str] = ..., owner: _Optional[str] = ..., disk_bytes: _Optional[int] = ...) -> None: ...

class Checkpoint(_message.Message):
    __slots__ = ("number", "update", "path", "bytes", "created_at")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    number: int
    update: int
    path: str
    bytes: int
    created_at: float
    def __init__(self, number: _Optional[int] = ..., update: _Optional[int] = ..., path: _Optional[str] = ..., bytes: _Optional[int] = ..., created_at: _Optional[float] = ...) -> None: ...

class EvalResult(_message.Message):
    __slots__ = ("update", "accuracy", "standard_error", "prompts", "parts", "examples")
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    STANDARD_ERROR_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    EXAMPLES_FIELD_NUMBER: _ClassVar[int]
    update: int
    accuracy: float
    standard_error: float
    prompts: int
    parts: _containers.RepeatedCompositeFieldContainer[_trainer_pb2.Metric]
    examples: _containers.RepeatedCompositeFieldContainer[EvalExample]
    def __init__(self, update: _Optional[int] = ..., accuracy: _Optional[float] = ..., standard_error: _Optional[float] = ..., prompts: _Optional[int] = ..., parts: _Optional[_Iterable[_Union[_trainer_pb2.Metric, _Mapping]]] = ..., examples: _Optional[_Iterable[_Union[EvalExample, _Mapping]]] = ...) -> None: ...

class EvalExample(_message.Message):
    __slots__ = ("prompt", "completion", "answer", "score")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    completion: str
    answer: str
    score: float
    def __init__(self, prompt: _Optional[str] = ..., completion: _Optional[str] = ..., answer: _Optional[str] = ..., score: _Optional[float] = ...) -> None: ...

class SubmitRequest(_message.Message):
    __slots__ = ("request_id", "yaml", "file_name", "overrides", "base_folder", "validate_only")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    YAML_FIELD_NUMBER: _ClassVar[int]
    FILE_NAME_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    BASE_FOLDER_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    yaml: str
    file_name: str
    overrides: _containers.RepeatedScalarFieldContainer[str]
    base_folder: str
    validate_only: bool
    def __init__(self, request_id: _Optional[str] = ..., yaml: _Optional[str] = ..., file_name: _Optional[str] = ..., overrides: _Optional[_Iterable[str]] = ..., base_folder: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class SubmitReply(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListJobsReply(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[Job]
    def __init__(self, jobs: _Optional[_Iterable[_Union[Job, _Mapping]]] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("name", "after", "no_follow")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    NO_FOLLOW_FIELD_NUMBER: _ClassVar[int]
    name: str
    after: int
    no_follow: bool
    def __init__(self, name: _Optional[str] = ..., after: _Optional[int] = ..., no_follow: _Optional[bool] = ...) -> None: ...

class JobEvent(_message.Message):
    __slots__ = ("sequence", "time", "state", "update", "eval", "checkpoint", "message", "detail")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    EVAL_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: float
    state: JobState
    update: UpdateRecord
    eval: EvalResult
    checkpoint: Checkpoint
    message: str
    detail: str
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[float] = ..., state: _Optional[_Union[JobState, str]] = ..., update: _Optional[_Union[UpdateRecord, _Mapping]] = ..., eval: _Optional[_Union[EvalResult, _Mapping]] = ..., checkpoint: _Optional[_Union[Checkpoint, _Mapping]] = ..., message: _Optional[str] = ..., detail: _Optional[str] = ...) -> None: ...

class UpdateRecord(_message.Message):
    __slots__ = ("update", "max_updates", "metrics")
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    MAX_UPDATES_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    update: int
    max_updates: int
    metrics: _containers.RepeatedCompositeFieldContainer[_trainer_pb2.Metric]
    def __init__(self, update: _Optional[int] = ..., max_updates: _Optional[int] = ..., metrics: _Optional[_Iterable[_Union[_trainer_pb2.Metric, _Mapping]]] = ...) -> None: ...

class JobCommand(_message.Message):
    __slots__ = ("request_id", "name")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class DeleteJobReply(_message.Message):
    __slots__ = ("freed_bytes",)
    FREED_BYTES_FIELD_NUMBER: _ClassVar[int]
    freed_bytes: int
    def __init__(self, freed_bytes: _Optional[int] = ...) -> None: ...

class DeleteCheckpointRequest(_message.Message):
    __slots__ = ("request_id", "name", "number")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    number: int
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., number: _Optional[int] = ...) -> None: ...

class ListUpdatesRequest(_message.Message):
    __slots__ = ("name", "after", "limit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    after: int
    limit: int
    def __init__(self, name: _Optional[str] = ..., after: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class ListUpdatesReply(_message.Message):
    __slots__ = ("updates",)
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    updates: _containers.RepeatedCompositeFieldContainer[UpdateRecord]
    def __init__(self, updates: _Optional[_Iterable[_Union[UpdateRecord, _Mapping]]] = ...) -> None: ...

class ResumeJobRequest(_message.Message):
    __slots__ = ("request_id", "name", "overrides")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    name: str
    overrides: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, request_id: _Optional[str] = ..., name: _Optional[str] = ..., overrides: _Optional[_Iterable[str]] = ...) -> None: ...

class LogsRequest(_message.Message):
    __slots__ = ("name", "follow", "tail")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    TAIL_FIELD_NUMBER: _ClassVar[int]
    name: str
    follow: bool
    tail: int
    def __init__(self, name: _Optional[str] = ..., follow: _Optional[bool] = ..., tail: _Optional[int] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("actor", "text")
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    actor: str
    text: str
    def __init__(self, actor: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class ListRolloutsRequest(_message.Message):
    __slots__ = ("name", "update", "sort", "limit", "tokens", "prompt", "sibling", "contains", "min_reward", "max_reward", "finish_reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    SORT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SIBLING_FIELD_NUMBER: _ClassVar[int]
    CONTAINS_FIELD_NUMBER: _ClassVar[int]
    MIN_REWARD_FIELD_NUMBER: _ClassVar[int]
    MAX_REWARD_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    update: int
    sort: str
    limit: int
    tokens: bool
    prompt: int
    sibling: int
    contains: str
    min_reward: float
    max_reward: float
    finish_reason: _policy_pb2.FinishReason
    def __init__(self, name: _Optional[str] = ..., update: _Optional[int] = ..., sort: _Optional[str] = ..., limit: _Optional[int] = ..., tokens: _Optional[bool] = ..., prompt: _Optional[int] = ..., sibling: _Optional[int] = ..., contains: _Optional[str] = ..., min_reward: _Optional[float] = ..., max_reward: _Optional[float] = ..., finish_reason: _Optional[_Union[_policy_pb2.FinishReason, str]] = ...) -> None: ...

class StoredRollout(_message.Message):
    __slots__ = ("rollout", "prompt", "answer", "update")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    rollout: _policy_pb2.Rollout
    prompt: _containers.RepeatedCompositeFieldContainer[_policy_pb2.Message]
    answer: str
    update: int
    def __init__(self, rollout: _Optional[_Union[_policy_pb2.Rollout, _Mapping]] = ..., prompt: _Optional[_Iterable[_Union[_policy_pb2.Message, _Mapping]]] = ..., answer: _Optional[str] = ..., update: _Optional[int] = ...) -> None: ...

class ListRolloutsReply(_message.Message):
    __slots__ = ("rollouts", "update", "matching")
    ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    MATCHING_FIELD_NUMBER: _ClassVar[int]
    rollouts: _containers.RepeatedCompositeFieldContainer[StoredRollout]
    update: int
    matching: int
    def __init__(self, rollouts: _Optional[_Iterable[_Union[StoredRollout, _Mapping]]] = ..., update: _Optional[int] = ..., matching: _Optional[int] = ...) -> None: ...

class ListActorsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListActorsReply(_message.Message):
    __slots__ = ("actors",)
    ACTORS_FIELD_NUMBER: _ClassVar[int]
    actors: _containers.RepeatedCompositeFieldContainer[Actor]
    def __init__(self, actors: _Optional[_Iterable[_Union[Actor, _Mapping]]] = ...) -> None: ...

class Actor(_message.Message):
    __slots__ = ("role", "name", "address", "state", "epoch", "version", "device", "build", "load", "silent_seconds", "admin_address")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    SILENT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ADMIN_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    role: str
    name: str
    address: str
    state: str
    epoch: int
    version: _policy_pb2.PolicyVersion
    device: str
    build: _policy_pb2.BuildVersion
    load: str
    silent_seconds: float
    admin_address: str
    def __init__(self, role: _Optional[str] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., state: _Optional[str] = ..., epoch: _Optional[int] = ..., version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., device: _Optional[str] = ..., build: _Optional[_Union[_policy_pb2.BuildVersion, _Mapping]] = ..., load: _Optional[str] = ..., silent_seconds: _Optional[float] = ..., admin_address: _Optional[str] = ...) -> None: ...

class GetLedgerRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class LedgerSummary(_message.Message):
    __slots__ = ("in_flight", "finished", "scored", "training", "consumed", "dropped", "rollouts_stored", "duplicates")
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    SCORED_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    CONSUMED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    ROLLOUTS_STORED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    in_flight: int
    finished: int
    scored: int
    training: int
    consumed: int
    dropped: _containers.RepeatedCompositeFieldContainer[DroppedGroup]
    rollouts_stored: int
    duplicates: int
    def __init__(self, in_flight: _Optional[int] = ..., finished: _Optional[int] = ..., scored: _Optional[int] = ..., training: _Optional[int] = ..., consumed: _Optional[int] = ..., dropped: _Optional[_Iterable[_Union[DroppedGroup, _Mapping]]] = ..., rollouts_stored: _Optional[int] = ..., duplicates: _Optional[int] = ...) -> None: ...

class DroppedGroup(_message.Message):
    __slots__ = ("group", "reason")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    group: _policy_pb2.GroupId
    reason: str
    def __init__(self, group: _Optional[_Union[_policy_pb2.GroupId, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class RegisterRequest(_message.Message):
    __slots__ = ("role", "name", "address", "device", "build", "incarnation", "trainer", "admin_address")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    BUILD_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    TRAINER_FIELD_NUMBER: _ClassVar[int]
    ADMIN_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    role: str
    name: str
    address: str
    device: str
    build: _policy_pb2.BuildVersion
    incarnation: str
    trainer: _trainer_pb2.TrainerStatusReply
    admin_address: str
    def __init__(self, role: _Optional[str] = ..., name: _Optional[str] = ..., address: _Optional[str] = ..., device: _Optional[str] = ..., build: _Optional[_Union[_policy_pb2.BuildVersion, _Mapping]] = ..., incarnation: _Optional[str] = ..., trainer: _Optional[_Union[_trainer_pb2.TrainerStatusReply, _Mapping]] = ..., admin_address: _Optional[str] = ...) -> None: ...

class RegisterReply(_message.Message):
    __slots__ = ("actor_epoch", "controller_epoch", "lease_seconds")
    ACTOR_EPOCH_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    actor_epoch: int
    controller_epoch: int
    lease_seconds: float
    def __init__(self, actor_epoch: _Optional[int] = ..., controller_epoch: _Optional[int] = ..., lease_seconds: _Optional[float] = ...) -> None: ...

class HeartbeatRequest(_message.Message):
    __slots__ = ("name", "actor_epoch", "version", "load")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ACTOR_EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    name: str
    actor_epoch: int
    version: _policy_pb2.PolicyVersion
    load: str
    def __init__(self, name: _Optional[str] = ..., actor_epoch: _Optional[int] = ..., version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., load: _Optional[str] = ...) -> None: ...

class HeartbeatReply(_message.Message):
    __slots__ = ("controller_epoch",)
    CONTROLLER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    controller_epoch: int
    def __init__(self, controller_epoch: _Optional[int] = ...) -> None: ...

class GetServerRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerReply(_message.Message):
    __slots__ = ("build", "controller_epoch", "admin_address", "time", "disk_free_bytes", "disk_bytes", "user", "user_role")
    BUILD_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_EPOCH_FIELD_NUMBER: _ClassVar[int]
    ADMIN_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    USER_ROLE_FIELD_NUMBER: _ClassVar[int]
    build: _policy_pb2.BuildVersion
    controller_epoch: int
    admin_address: str
    time: float
    disk_free_bytes: int
    disk_bytes: int
    user: str
    user_role: str
    def __init__(self, build: _Optional[_Union[_policy_pb2.BuildVersion, _Mapping]] = ..., controller_epoch: _Optional[int] = ..., admin_address: _Optional[str] = ..., time: _Optional[float] = ..., disk_free_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., user: _Optional[str] = ..., user_role: _Optional[str] = ...) -> None: ...
