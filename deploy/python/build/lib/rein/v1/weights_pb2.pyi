from rein.v1 import annotations_pb2 as _annotations_pb2
from rein.v1 import policy_pb2 as _policy_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WeightTransport(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WEIGHT_TRANSPORT_UNSPECIFIED: _ClassVar[WeightTransport]
    WEIGHT_TRANSPORT_GRPC: _ClassVar[WeightTransport]
    WEIGHT_TRANSPORT_NCCL: _ClassVar[WeightTransport]

class InFlightPolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IN_FLIGHT_POLICY_CONTINUE: _ClassVar[InFlightPolicy]
    IN_FLIGHT_POLICY_FINISH: _ClassVar[InFlightPolicy]
WEIGHT_TRANSPORT_UNSPECIFIED: WeightTransport
WEIGHT_TRANSPORT_GRPC: WeightTransport
WEIGHT_TRANSPORT_NCCL: WeightTransport
IN_FLIGHT_POLICY_CONTINUE: InFlightPolicy
IN_FLIGHT_POLICY_FINISH: InFlightPolicy

class ParameterPlan(_message.Message):
    __slots__ = ("name", "shape", "dtype", "offset_bytes", "size_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    shape: _containers.RepeatedScalarFieldContainer[int]
    dtype: str
    offset_bytes: int
    size_bytes: int
    def __init__(self, name: _Optional[str] = ..., shape: _Optional[_Iterable[int]] = ..., dtype: _Optional[str] = ..., offset_bytes: _Optional[int] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class BeginWeightsRequest(_message.Message):
    __slots__ = ("fence", "version", "parameters", "arena_bytes", "transport", "nccl_unique_id", "nccl_rank", "nccl_size", "bucket_bytes", "deadline_seconds")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ARENA_BYTES_FIELD_NUMBER: _ClassVar[int]
    TRANSPORT_FIELD_NUMBER: _ClassVar[int]
    NCCL_UNIQUE_ID_FIELD_NUMBER: _ClassVar[int]
    NCCL_RANK_FIELD_NUMBER: _ClassVar[int]
    NCCL_SIZE_FIELD_NUMBER: _ClassVar[int]
    BUCKET_BYTES_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    version: _policy_pb2.PolicyVersion
    parameters: _containers.RepeatedCompositeFieldContainer[ParameterPlan]
    arena_bytes: int
    transport: WeightTransport
    nccl_unique_id: bytes
    nccl_rank: int
    nccl_size: int
    bucket_bytes: int
    deadline_seconds: float
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ..., version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., parameters: _Optional[_Iterable[_Union[ParameterPlan, _Mapping]]] = ..., arena_bytes: _Optional[int] = ..., transport: _Optional[_Union[WeightTransport, str]] = ..., nccl_unique_id: _Optional[bytes] = ..., nccl_rank: _Optional[int] = ..., nccl_size: _Optional[int] = ..., bucket_bytes: _Optional[int] = ..., deadline_seconds: _Optional[float] = ...) -> None: ...

class BeginWeightsReply(_message.Message):
    __slots__ = ("current",)
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    current: _policy_pb2.PolicyVersion
    def __init__(self, current: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ...) -> None: ...

class WeightChunk(_message.Message):
    __slots__ = ("fence", "version", "offset_bytes", "data")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_BYTES_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    version: _policy_pb2.PolicyVersion
    offset_bytes: int
    data: bytes
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ..., version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., offset_bytes: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class SendWeightsReply(_message.Message):
    __slots__ = ("received_bytes",)
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    def __init__(self, received_bytes: _Optional[int] = ...) -> None: ...

class CommitWeightsRequest(_message.Message):
    __slots__ = ("fence", "version", "parameter_digests", "digest", "in_flight")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_DIGESTS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    version: _policy_pb2.PolicyVersion
    parameter_digests: _containers.RepeatedScalarFieldContainer[int]
    digest: int
    in_flight: InFlightPolicy
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ..., version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., parameter_digests: _Optional[_Iterable[int]] = ..., digest: _Optional[int] = ..., in_flight: _Optional[_Union[InFlightPolicy, str]] = ...) -> None: ...

class CommitWeightsReply(_message.Message):
    __slots__ = ("version", "digest")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    version: _policy_pb2.PolicyVersion
    digest: int
    def __init__(self, version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ..., digest: _Optional[int] = ...) -> None: ...

class AbortWeightsRequest(_message.Message):
    __slots__ = ("fence", "version")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    fence: _policy_pb2.Fence
    version: _policy_pb2.PolicyVersion
    def __init__(self, fence: _Optional[_Union[_policy_pb2.Fence, _Mapping]] = ..., version: _Optional[_Union[_policy_pb2.PolicyVersion, _Mapping]] = ...) -> None: ...

class AbortWeightsReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WeightReceiver(_message.Message):
    __slots__ = ("name", "address", "actor_epoch")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_EPOCH_FIELD_NUMBER: _ClassVar[int]
    name: str
    address: str
    actor_epoch: int
    def __init__(self, name: _Optional[str] = ..., address: _Optional[str] = ..., actor_epoch: _Optional[int] = ...) -> None: ...
