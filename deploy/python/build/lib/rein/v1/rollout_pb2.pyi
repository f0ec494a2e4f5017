from rein.v1 import annotations_pb2 as _annotations_pb2
from rein.v1 import policy_pb2 as _policy_pb2
from rein.v1 import job_pb2 as _job_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LoadModelRequest(_message.Message):
    __slots__ = ("fence", "model", "rollout")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    model: _job_pb2.ModelConfig
    rollout: _job_pb2.RolloutConfig
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ..., model: _Optional[_Union[_job_pb2.ModelConfig, _Mapping]] = ..., rollout: _Optional[_Union[_job_pb2.RolloutConfig, _Mapping]] = ...) -> None: ...

class LoadModelReply(_message.Message):
    __slots__ = ("parameters", "kv_tokens")
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    KV_TOKENS_FIELD_NUMBER: _ClassVar[int]
    parameters: int
    kv_tokens: int
    def __init__(self, parameters: _Optional[int] = ..., kv_tokens: _Optional[int] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("fence", "group", "prompt_token_ids", "siblings", "sampling", "version", "turn")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    SIBLINGS_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TURN_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    group: _policy_pb2.GroupId
    prompt_token_ids: _containers.RepeatedScalarFieldContainer[int]
    siblings: _containers.RepeatedScalarFieldContainer[int]
    sampling: _policy_pb2.SamplingParams
    version: _policy_pb2.PolicyVersion
    turn: int
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ..., group: _Optional[_Union[_policy_pb2.GroupId, _Mapping]] = ..., prompt_token_ids: _Optional[_Iterable[int]] = ..., siblings: _Optional[_Iterable[int]] = ..., sampling: _Optional[_Union[_policy_pb2.SamplingParams, _Mapping]] = ..., version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., turn: _Optional[int] = ...) -> None: ...

class GenerateReply(_message.Message):
    __slots__ = ("rollout",)
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    rollout: _policy_pb2.Rollout
    def __init__(self, rollout: _Optional[_Union[_policy_pb2.Rollout, _Mapping]] = ...) -> None: ...

class AbortGenerateRequest(_message.Message):
    __slots__ = ("fence", "groups")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    groups: _containers.RepeatedCompositeFieldContainer[_policy_pb2.GroupId]
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ..., groups: _Optional[_Iterable[_Union[_policy_pb2.GroupId, _Mapping]]] = ...) -> None: ...

class AbortGenerateReply(_message.Message):
    __slots__ = ("aborted",)
    ABORTED_FIELD_NUMBER: _ClassVar[int]
    aborted: int
    def __init__(self, aborted: _Optional[int] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("fence",)
    FENCE_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ...) -> None: ...

class PauseReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("fence",)
    FENCE_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ...) -> None: ...

class ResumeReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ActorStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ActorStatusReply(_message.Message):
    __slots__ = ("job", "version", "digest", "requests_running", "requests_waiting", "kv_usage", "tokens_total")
    JOB_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_WAITING_FIELD_NUMBER: _ClassVar[int]
    KV_USAGE_FIELD_NUMBER: _ClassVar[int]
    TOKENS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    job: str
    version: _policy_pb2.PolicyVersion
    digest: int
    requests_running: int
    requests_waiting: int
    kv_usage: float
    tokens_total: int
    def __init__(self, job: _Optional[str] = ..., version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., digest: _Optional[int] = ..., requests_running: _Optional[int] = ..., requests_waiting: _Optional[int] = ..., kv_usage: _Optional[float] = ..., tokens_total: _Optional[int] = ...) -> None: ...
