from rein.v1 import annotations_pb2 as _annotations_pb2
from google.protobuf import struct_pb2 as _struct_pb2
from rein.v1 import job_pb2 as _job_pb2
from rein.v1 import policy_pb2 as _policy_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ScoreRewardsRequest(_message.Message):
    __slots__ = ("rules", "items")
    RULES_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[_job_pb2.RewardConfig]
    items: _containers.RepeatedCompositeFieldContainer[RewardItem]
    def __init__(self, rules: _Optional[_Iterable[_Union[_job_pb2.RewardConfig, _Mapping]]] = ..., items: _Optional[_Iterable[_Union[RewardItem, _Mapping]]] = ...) -> None: ...

class RewardItem(_message.Message):
    __slots__ = ("id", "prompt", "completion", "columns", "answer")
    ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    id: str
    prompt: _containers.RepeatedCompositeFieldContainer[_policy_pb2.Message]
    completion: _policy_pb2.Completion
    columns: _struct_pb2.Struct
    answer: str
    def __init__(self, id: _Optional[str] = ..., prompt: _Optional[_Iterable[_Union[_policy_pb2.Message, _Mapping]]] = ..., completion: _Optional[_Union[_policy_pb2.Completion, _Mapping]] = ..., columns: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., answer: _Optional[str] = ...) -> None: ...

class ScoreRewardsReply(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[_policy_pb2.RewardResult]
    def __init__(self, results: _Optional[_Iterable[_Union[_policy_pb2.RewardResult, _Mapping]]] = ...) -> None: ...
