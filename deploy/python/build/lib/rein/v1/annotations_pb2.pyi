from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor
RULES_FIELD_NUMBER: _ClassVar[int]
rules: _descriptor.FieldDescriptor
ACCESS_FIELD_NUMBER: _ClassVar[int]
access: _descriptor.FieldDescriptor
SHORTHAND_FIELD_NUMBER: _ClassVar[int]
shorthand: _descriptor.FieldDescriptor
CHOICE_REQUIRED_FIELD_NUMBER: _ClassVar[int]
choice_required: _descriptor.FieldDescriptor

class FieldRules(_message.Message):
    __slots__ = ("doc", "default_value", "min", "max", "exclusive_min", "exclusive_max", "unit", "peers", "required", "secret", "path", "defaults", "formula", "source")
    DOC_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VALUE_FIELD_NUMBER: _ClassVar[int]
    MIN_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_MIN_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_MAX_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    PEERS_FIELD_NUMBER: _ClassVar[int]
    REQUIRED_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    DEFAULTS_FIELD_NUMBER: _ClassVar[int]
    FORMULA_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    doc: str
    default_value: str
    min: float
    max: float
    exclusive_min: bool
    exclusive_max: bool
    unit: str
    peers: str
    required: bool
    secret: bool
    path: bool
    defaults: str
    formula: str
    source: str
    def __init__(self, doc: _Optional[str] = ..., default_value: _Optional[str] = ..., min: _Optional[float] = ..., max: _Optional[float] = ..., exclusive_min: _Optional[bool] = ..., exclusive_max: _Optional[bool] = ..., unit: _Optional[str] = ..., peers: _Optional[str] = ..., required: _Optional[bool] = ..., secret: _Optional[bool] = ..., path: _Optional[bool] = ..., defaults: _Optional[str] = ..., formula: _Optional[str] = ..., source: _Optional[str] = ...) -> None: ...

class MethodAccess(_message.Message):
    __slots__ = ("services", "user")
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    USER_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedScalarFieldContainer[str]
    user: str
    def __init__(self, services: _Optional[_Iterable[str]] = ..., user: _Optional[str] = ...) -> None: ...
