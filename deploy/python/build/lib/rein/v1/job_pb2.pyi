from rein.v1 import annotations_pb2 as _annotations_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Aggregation(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AGGREGATION_UNSPECIFIED: _ClassVar[Aggregation]
    AGGREGATION_TOKEN_MEAN: _ClassVar[Aggregation]
    AGGREGATION_SEQUENCE_MEAN: _ClassVar[Aggregation]
    AGGREGATION_SEQUENCE_SUM: _ClassVar[Aggregation]
    AGGREGATION_SEQUENCE_SUM_FIXED: _ClassVar[Aggregation]
    AGGREGATION_TOKEN_SUM: _ClassVar[Aggregation]

class RatioLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RATIO_LEVEL_UNSPECIFIED: _ClassVar[RatioLevel]
    RATIO_LEVEL_TOKEN: _ClassVar[RatioLevel]
    RATIO_LEVEL_SEQUENCE: _ClassVar[RatioLevel]
    RATIO_LEVEL_GEOMETRIC: _ClassVar[RatioLevel]

class Advantage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ADVANTAGE_UNSPECIFIED: _ClassVar[Advantage]
    ADVANTAGE_GROUP_RELATIVE: _ClassVar[Advantage]
    ADVANTAGE_LEAVE_ONE_OUT: _ClassVar[Advantage]
    ADVANTAGE_REINFORCE_PP: _ClassVar[Advantage]
    ADVANTAGE_REINFORCE_PP_BASELINE: _ClassVar[Advantage]
    ADVANTAGE_GREEDY_BASELINE: _ClassVar[Advantage]
    ADVANTAGE_OPTIMAL_BASELINE: _ClassVar[Advantage]
    ADVANTAGE_GPG: _ClassVar[Advantage]
    ADVANTAGE_PASS_AT_K: _ClassVar[Advantage]
    ADVANTAGE_PER_REWARD: _ClassVar[Advantage]
    ADVANTAGE_REWARD_TO_GO: _ClassVar[Advantage]
    ADVANTAGE_GAE: _ClassVar[Advantage]

class KlPlace(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KL_PLACE_UNSPECIFIED: _ClassVar[KlPlace]
    KL_PLACE_LOSS: _ClassVar[KlPlace]
    KL_PLACE_REWARD: _ClassVar[KlPlace]

class WeightLevel(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WEIGHT_LEVEL_UNSPECIFIED: _ClassVar[WeightLevel]
    WEIGHT_LEVEL_TOKEN: _ClassVar[WeightLevel]
    WEIGHT_LEVEL_SEQUENCE: _ClassVar[WeightLevel]

class WeightMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WEIGHT_MODE_UNSPECIFIED: _ClassVar[WeightMode]
    WEIGHT_MODE_NONE: _ClassVar[WeightMode]
    WEIGHT_MODE_TRUNCATE: _ClassVar[WeightMode]
    WEIGHT_MODE_MASK: _ClassVar[WeightMode]

class RejectionStatistic(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REJECTION_STATISTIC_UNSPECIFIED: _ClassVar[RejectionStatistic]
    REJECTION_STATISTIC_NONE: _ClassVar[RejectionStatistic]
    REJECTION_STATISTIC_TOKEN_K1: _ClassVar[RejectionStatistic]
    REJECTION_STATISTIC_TOKEN_K2: _ClassVar[RejectionStatistic]
    REJECTION_STATISTIC_TOKEN_K3: _ClassVar[RejectionStatistic]
    REJECTION_STATISTIC_SEQUENCE_SUM_K1: _ClassVar[RejectionStatistic]
    REJECTION_STATISTIC_SEQUENCE_SUM_K2: _ClassVar[RejectionStatistic]
    REJECTION_STATISTIC_SEQUENCE_SUM_K3: _ClassVar[RejectionStatistic]
    REJECTION_STATISTIC_SEQUENCE_MEAN_K1: _ClassVar[RejectionStatistic]
    REJECTION_STATISTIC_SEQUENCE_MEAN_K2: _ClassVar[RejectionStatistic]
    REJECTION_STATISTIC_SEQUENCE_MEAN_K3: _ClassVar[RejectionStatistic]
    REJECTION_STATISTIC_SEQUENCE_MAX_K1: _ClassVar[RejectionStatistic]
    REJECTION_STATISTIC_SEQUENCE_MAX_K2: _ClassVar[RejectionStatistic]
    REJECTION_STATISTIC_SEQUENCE_MAX_K3: _ClassVar[RejectionStatistic]

class KlEstimator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    KL_ESTIMATOR_UNSPECIFIED: _ClassVar[KlEstimator]
    KL_ESTIMATOR_K1: _ClassVar[KlEstimator]
    KL_ESTIMATOR_K2: _ClassVar[KlEstimator]
    KL_ESTIMATOR_K3: _ClassVar[KlEstimator]
    KL_ESTIMATOR_ABS: _ClassVar[KlEstimator]
    KL_ESTIMATOR_K1_STRAIGHT_THROUGH: _ClassVar[KlEstimator]
    KL_ESTIMATOR_K3_STRAIGHT_THROUGH: _ClassVar[KlEstimator]

class LearnedTurns(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEARNED_TURNS_UNSPECIFIED: _ClassVar[LearnedTurns]
    LEARNED_TURNS_ALL: _ClassVar[LearnedTurns]
    LEARNED_TURNS_LAST: _ClassVar[LearnedTurns]

class DpoLoss(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DPO_LOSS_UNSPECIFIED: _ClassVar[DpoLoss]
    DPO_LOSS_SIGMOID: _ClassVar[DpoLoss]
    DPO_LOSS_IPO: _ClassVar[DpoLoss]
    DPO_LOSS_IPO_SUM: _ClassVar[DpoLoss]
    DPO_LOSS_HINGE: _ClassVar[DpoLoss]
AGGREGATION_UNSPECIFIED: Aggregation
AGGREGATION_TOKEN_MEAN: Aggregation
AGGREGATION_SEQUENCE_MEAN: Aggregation
AGGREGATION_SEQUENCE_SUM: Aggregation
AGGREGATION_SEQUENCE_SUM_FIXED: Aggregation
AGGREGATION_TOKEN_SUM: Aggregation
RATIO_LEVEL_UNSPECIFIED: RatioLevel
RATIO_LEVEL_TOKEN: RatioLevel
RATIO_LEVEL_SEQUENCE: RatioLevel
RATIO_LEVEL_GEOMETRIC: RatioLevel
ADVANTAGE_UNSPECIFIED: Advantage
ADVANTAGE_GROUP_RELATIVE: Advantage
ADVANTAGE_LEAVE_ONE_OUT: Advantage
ADVANTAGE_REINFORCE_PP: Advantage
ADVANTAGE_REINFORCE_PP_BASELINE: Advantage
ADVANTAGE_GREEDY_BASELINE: Advantage
ADVANTAGE_OPTIMAL_BASELINE: Advantage
ADVANTAGE_GPG: Advantage
ADVANTAGE_PASS_AT_K: Advantage
ADVANTAGE_PER_REWARD: Advantage
ADVANTAGE_REWARD_TO_GO: Advantage
ADVANTAGE_GAE: Advantage
KL_PLACE_UNSPECIFIED: KlPlace
KL_PLACE_LOSS: KlPlace
KL_PLACE_REWARD: KlPlace
WEIGHT_LEVEL_UNSPECIFIED: WeightLevel
WEIGHT_LEVEL_TOKEN: WeightLevel
WEIGHT_LEVEL_SEQUENCE: WeightLevel
WEIGHT_MODE_UNSPECIFIED: WeightMode
WEIGHT_MODE_NONE: WeightMode
WEIGHT_MODE_TRUNCATE: WeightMode
WEIGHT_MODE_MASK: WeightMode
REJECTION_STATISTIC_UNSPECIFIED: RejectionStatistic
REJECTION_STATISTIC_NONE: RejectionStatistic
REJECTION_STATISTIC_TOKEN_K1: RejectionStatistic
REJECTION_STATISTIC_TOKEN_K2: RejectionStatistic
REJECTION_STATISTIC_TOKEN_K3: RejectionStatistic
REJECTION_STATISTIC_SEQUENCE_SUM_K1: RejectionStatistic
REJECTION_STATISTIC_SEQUENCE_SUM_K2: RejectionStatistic
REJECTION_STATISTIC_SEQUENCE_SUM_K3: RejectionStatistic
REJECTION_STATISTIC_SEQUENCE_MEAN_K1: RejectionStatistic
REJECTION_STATISTIC_SEQUENCE_MEAN_K2: RejectionStatistic
REJECTION_STATISTIC_SEQUENCE_MEAN_K3: RejectionStatistic
REJECTION_STATISTIC_SEQUENCE_MAX_K1: RejectionStatistic
REJECTION_STATISTIC_SEQUENCE_MAX_K2: RejectionStatistic
REJECTION_STATISTIC_SEQUENCE_MAX_K3: RejectionStatistic
KL_ESTIMATOR_UNSPECIFIED: KlEstimator
KL_ESTIMATOR_K1: KlEstimator
KL_ESTIMATOR_K2: KlEstimator
KL_ESTIMATOR_K3: KlEstimator
KL_ESTIMATOR_ABS: KlEstimator
KL_ESTIMATOR_K1_STRAIGHT_THROUGH: KlEstimator
KL_ESTIMATOR_K3_STRAIGHT_THROUGH: KlEstimator
LEARNED_TURNS_UNSPECIFIED: LearnedTurns
LEARNED_TURNS_ALL: LearnedTurns
LEARNED_TURNS_LAST: LearnedTurns
DPO_LOSS_UNSPECIFIED: DpoLoss
DPO_LOSS_SIGMOID: DpoLoss
DPO_LOSS_IPO: DpoLoss
DPO_LOSS_IPO_SUM: DpoLoss
DPO_LOSS_HINGE: DpoLoss

class JobConfig(_message.Message):
    __slots__ = ("name", "model", "data", "grpo", "dr_grpo", "dapo", "gspo", "ppo", "rloo", "reinforce_pp", "reinforce_pp_baseline", "remax", "cispo", "sapo", "gmpo", "sft", "dpo", "kto", "orpo", "simpo", "reward_model", "evaluate", "rewards", "trainer", "rollout", "eval", "checkpoint", "placement", "seed", "failure", "output")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    GRPO_FIELD_NUMBER: _ClassVar[int]
    DR_GRPO_FIELD_NUMBER: _ClassVar[int]
    DAPO_FIELD_NUMBER: _ClassVar[int]
    GSPO_FIELD_NUMBER: _ClassVar[int]
    PPO_FIELD_NUMBER: _ClassVar[int]
    RLOO_FIELD_NUMBER: _ClassVar[int]
    REINFORCE_PP_FIELD_NUMBER: _ClassVar[int]
    REINFORCE_PP_BASELINE_FIELD_NUMBER: _ClassVar[int]
    REMAX_FIELD_NUMBER: _ClassVar[int]
    CISPO_FIELD_NUMBER: _ClassVar[int]
    SAPO_FIELD_NUMBER: _ClassVar[int]
    GMPO_FIELD_NUMBER: _ClassVar[int]
    SFT_FIELD_NUMBER: _ClassVar[int]
    DPO_FIELD_NUMBER: _ClassVar[int]
    KTO_FIELD_NUMBER: _ClassVar[int]
    ORPO_FIELD_NUMBER: _ClassVar[int]
    SIMPO_FIELD_NUMBER: _ClassVar[int]
    REWARD_MODEL_FIELD_NUMBER: _ClassVar[int]
    EVALUATE_FIELD_NUMBER: _ClassVar[int]
    REWARDS_FIELD_NUMBER: _ClassVar[int]
    TRAINER_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    EVAL_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: ModelConfig
    data: DataConfig
    grpo: GrpoConfig
    dr_grpo: GrpoConfig
    dapo: GrpoConfig
    gspo: GrpoConfig
    ppo: GrpoConfig
    rloo: GrpoConfig
    reinforce_pp: GrpoConfig
    reinforce_pp_baseline: GrpoConfig
    remax: GrpoConfig
    cispo: GrpoConfig
    sapo: GrpoConfig
    gmpo: GrpoConfig
    sft: SftConfig
    dpo: DpoConfig
    kto: KtoConfig
    orpo: OrpoConfig
    simpo: SimpoConfig
    reward_model: RewardModelConfig
    evaluate: EvaluateConfig
    rewards: _containers.RepeatedCompositeFieldContainer[RewardConfig]
    trainer: TrainerConfig
    rollout: RolloutConfig
    eval: EvalConfig
    checkpoint: CheckpointConfig
    placement: PlacementConfig
    seed: int
    failure: FailureConfig
    output: str
    def __init__(self, name: _Optional[str] = ..., model: _Optional[_Union[ModelConfig, _Mapping]] = ..., data: _Optional[_Union[DataConfig, _Mapping]] = ..., grpo: _Optional[_Union[GrpoConfig, _Mapping]] = ..., dr_grpo: _Optional[_Union[GrpoConfig, _Mapping]] = ..., dapo: _Optional[_Union[GrpoConfig, _Mapping]] = ..., gspo: _Optional[_Union[GrpoConfig, _Mapping]] = ..., ppo: _Optional[_Union[GrpoConfig, _Mapping]] = ..., rloo: _Optional[_Union[GrpoConfig, _Mapping]] = ..., reinforce_pp: _Optional[_Union[GrpoConfig, _Mapping]] = ..., reinforce_pp_baseline: _Optional[_Union[GrpoConfig, _Mapping]] = ..., remax: _Optional[_Union[GrpoConfig, _Mapping]] = ..., cispo: _Optional[_Union[GrpoConfig, _Mapping]] = ..., sapo: _Optional[_Union[GrpoConfig, _Mapping]] = ..., gmpo: _Optional[_Union[GrpoConfig, _Mapping]] = ..., sft: _Optional[_Union[SftConfig, _Mapping]] = ..., dpo: _Optional[_Union[DpoConfig, _Mapping]] = ..., kto: _Optional[_Union[KtoConfig, _Mapping]] = ..., orpo: _Optional[_Union[OrpoConfig, _Mapping]] = ..., simpo: _Optional[_Union[SimpoConfig, _Mapping]] = ..., reward_model: _Optional[_Union[RewardModelConfig, _Mapping]] = ..., evaluate: _Optional[_Union[EvaluateConfig, _Mapping]] = ..., rewards: _Optional[_Iterable[_Union[RewardConfig, _Mapping]]] = ..., trainer: _Optional[_Union[TrainerConfig, _Mapping]] = ..., rollout: _Optional[_Union[RolloutConfig, _Mapping]] = ..., eval: _Optional[_Union[EvalConfig, _Mapping]] = ..., checkpoint: _Optional[_Union[CheckpointConfig, _Mapping]] = ..., placement: _Optional[_Union[PlacementConfig, _Mapping]] = ..., seed: _Optional[int] = ..., failure: _Optional[_Union[FailureConfig, _Mapping]] = ..., output: _Optional[str] = ...) -> None: ...

class ModelConfig(_message.Message):
    __slots__ = ("path", "config", "job", "checkpoint", "dtype", "max_length")
    PATH_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    JOB_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    MAX_LENGTH_FIELD_NUMBER: _ClassVar[int]
    path: str
    config: str
    job: str
    checkpoint: int
    dtype: str
    max_length: int
    def __init__(self, path: _Optional[str] = ..., config: _Optional[str] = ..., job: _Optional[str] = ..., checkpoint: _Optional[int] = ..., dtype: _Optional[str] = ..., max_length: _Optional[int] = ...) -> None: ...

class DataConfig(_message.Message):
    __slots__ = ("train", "eval", "shuffle", "max_prompt_tokens", "drop_long_prompts")
    TRAIN_FIELD_NUMBER: _ClassVar[int]
    EVAL_FIELD_NUMBER: _ClassVar[int]
    SHUFFLE_FIELD_NUMBER: _ClassVar[int]
    MAX_PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DROP_LONG_PROMPTS_FIELD_NUMBER: _ClassVar[int]
    train: DatasetConfig
    eval: DatasetConfig
    shuffle: bool
    max_prompt_tokens: int
    drop_long_prompts: bool
    def __init__(self, train: _Optional[_Union[DatasetConfig, _Mapping]] = ..., eval: _Optional[_Union[DatasetConfig, _Mapping]] = ..., shuffle: _Optional[bool] = ..., max_prompt_tokens: _Optional[int] = ..., drop_long_prompts: _Optional[bool] = ...) -> None: ...

class DatasetConfig(_message.Message):
    __slots__ = ("file", "prompt", "answer", "chat_template", "system", "context", "chosen", "rejected", "label", "margin", "limit")
    FILE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    CHAT_TEMPLATE_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    CHOSEN_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    file: str
    prompt: str
    answer: str
    chat_template: bool
    system: str
    context: str
    chosen: str
    rejected: str
    label: str
    margin: str
    limit: int
    def __init__(self, file: _Optional[str] = ..., prompt: _Optional[str] = ..., answer: _Optional[str] = ..., chat_template: _Optional[bool] = ..., system: _Optional[str] = ..., context: _Optional[str] = ..., chosen: _Optional[str] = ..., rejected: _Optional[str] = ..., label: _Optional[str] = ..., margin: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class GrpoConfig(_message.Message):
    __slots__ = ("updates", "prompts", "group_size", "max_completion_tokens", "temperature", "top_k", "top_p", "kl", "aggregation", "normalize_by_std", "advantage_epsilon", "minibatches", "staleness", "mask_truncated", "ratio", "clip", "cispo", "sapo", "dppo_tv", "dppo_kl", "reinforce", "advantage", "gamma", "critic", "epochs", "whiten", "dynamic_sampling", "entropy_coefficient", "recompute_old", "correction", "reject", "mask_negative_above")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    GROUP_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    KL_FIELD_NUMBER: _ClassVar[int]
    AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    NORMALIZE_BY_STD_FIELD_NUMBER: _ClassVar[int]
    ADVANTAGE_EPSILON_FIELD_NUMBER: _ClassVar[int]
    MINIBATCHES_FIELD_NUMBER: _ClassVar[int]
    STALENESS_FIELD_NUMBER: _ClassVar[int]
    MASK_TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    RATIO_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    CISPO_FIELD_NUMBER: _ClassVar[int]
    SAPO_FIELD_NUMBER: _ClassVar[int]
    DPPO_TV_FIELD_NUMBER: _ClassVar[int]
    DPPO_KL_FIELD_NUMBER: _ClassVar[int]
    REINFORCE_FIELD_NUMBER: _ClassVar[int]
    ADVANTAGE_FIELD_NUMBER: _ClassVar[int]
    GAMMA_FIELD_NUMBER: _ClassVar[int]
    LAMBDA_FIELD_NUMBER: _ClassVar[int]
    CRITIC_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    WHITEN_FIELD_NUMBER: _ClassVar[int]
    DYNAMIC_SAMPLING_FIELD_NUMBER: _ClassVar[int]
    ENTROPY_COEFFICIENT_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTE_OLD_FIELD_NUMBER: _ClassVar[int]
    CORRECTION_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    MASK_NEGATIVE_ABOVE_FIELD_NUMBER: _ClassVar[int]
    updates: int
    prompts: int
    group_size: int
    max_completion_tokens: int
    temperature: float
    top_k: int
    top_p: float
    kl: KlConfig
    aggregation: Aggregation
    normalize_by_std: bool
    advantage_epsilon: float
    minibatches: int
    staleness: int
    mask_truncated: bool
    ratio: RatioLevel
    clip: ClipConfig
    cispo: CispoConfig
    sapo: SapoConfig
    dppo_tv: DppoConfig
    dppo_kl: DppoConfig
    reinforce: ReinforceConfig
    advantage: Advantage
    gamma: float
    critic: CriticConfig
    epochs: int
    whiten: bool
    dynamic_sampling: bool
    entropy_coefficient: float
    recompute_old: bool
    correction: CorrectionConfig
    reject: RejectionConfig
    mask_negative_above: float
    def __init__(self, updates: _Optional[int] = ..., prompts: _Optional[int] = ..., group_size: _Optional[int] = ..., max_completion_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., kl: _Optional[_Union[KlConfig, _Mapping]] = ..., aggregation: _Optional[_Union[Aggregation, str]] = ..., normalize_by_std: _Optional[bool] = ..., advantage_epsilon: _Optional[float] = ..., minibatches: _Optional[int] = ..., staleness: _Optional[int] = ..., mask_truncated: _Optional[bool] = ..., ratio: _Optional[_Union[RatioLevel, str]] = ..., clip: _Optional[_Union[ClipConfig, _Mapping]] = ..., cispo: _Optional[_Union[CispoConfig, _Mapping]] = ..., sapo: _Optional[_Union[SapoConfig, _Mapping]] = ..., dppo_tv: _Optional[_Union[DppoConfig, _Mapping]] = ..., dppo_kl: _Optional[_Union[DppoConfig, _Mapping]] = ..., reinforce: _Optional[_Union[ReinforceConfig, _Mapping]] = ..., advantage: _Optional[_Union[Advantage, str]] = ..., gamma: _Optional[float] = ..., critic: _Optional[_Union[CriticConfig, _Mapping]] = ..., epochs: _Optional[int] = ..., whiten: _Optional[bool] = ..., dynamic_sampling: _Optional[bool] = ..., entropy_coefficient: _Optional[float] = ..., recompute_old: _Optional[bool] = ..., correction: _Optional[_Union[CorrectionConfig, _Mapping]] = ..., reject: _Optional[_Union[RejectionConfig, _Mapping]] = ..., mask_negative_above: _Optional[float] = ..., **kwargs) -> None: ...

class ClipConfig(_message.Message):
    __slots__ = ("low", "high", "dual", "cap")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    DUAL_FIELD_NUMBER: _ClassVar[int]
    CAP_FIELD_NUMBER: _ClassVar[int]
    low: float
    high: float
    dual: float
    cap: float
    def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ..., dual: _Optional[float] = ..., cap: _Optional[float] = ...) -> None: ...

class CispoConfig(_message.Message):
    __slots__ = ("low", "high")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    low: float
    high: float
    def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class SapoConfig(_message.Message):
    __slots__ = ("tau_positive", "tau_negative")
    TAU_POSITIVE_FIELD_NUMBER: _ClassVar[int]
    TAU_NEGATIVE_FIELD_NUMBER: _ClassVar[int]
    tau_positive: float
    tau_negative: float
    def __init__(self, tau_positive: _Optional[float] = ..., tau_negative: _Optional[float] = ...) -> None: ...

class DppoConfig(_message.Message):
    __slots__ = ("low", "high", "ratio_cap")
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    RATIO_CAP_FIELD_NUMBER: _ClassVar[int]
    low: float
    high: float
    ratio_cap: float
    def __init__(self, low: _Optional[float] = ..., high: _Optional[float] = ..., ratio_cap: _Optional[float] = ...) -> None: ...

class CriticConfig(_message.Message):
    __slots__ = ("path", "learning_rate", "clip")
    PATH_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    CLIP_FIELD_NUMBER: _ClassVar[int]
    path: str
    learning_rate: float
    clip: float
    def __init__(self, path: _Optional[str] = ..., learning_rate: _Optional[float] = ..., clip: _Optional[float] = ...) -> None: ...

class ReinforceConfig(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CorrectionConfig(_message.Message):
    __slots__ = ("level", "mode", "low", "high")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    level: WeightLevel
    mode: WeightMode
    low: float
    high: float
    def __init__(self, level: _Optional[_Union[WeightLevel, str]] = ..., mode: _Optional[_Union[WeightMode, str]] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class RejectionConfig(_message.Message):
    __slots__ = ("statistic", "low", "high")
    STATISTIC_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    statistic: RejectionStatistic
    low: float
    high: float
    def __init__(self, statistic: _Optional[_Union[RejectionStatistic, str]] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class KlConfig(_message.Message):
    __slots__ = ("coefficient", "estimator", "place", "importance_weighted", "adaptive")
    COEFFICIENT_FIELD_NUMBER: _ClassVar[int]
    ESTIMATOR_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    IMPORTANCE_WEIGHTED_FIELD_NUMBER: _ClassVar[int]
    ADAPTIVE_FIELD_NUMBER: _ClassVar[int]
    coefficient: float
    estimator: KlEstimator
    place: KlPlace
    importance_weighted: bool
    adaptive: AdaptiveKlConfig
    def __init__(self, coefficient: _Optional[float] = ..., estimator: _Optional[_Union[KlEstimator, str]] = ..., place: _Optional[_Union[KlPlace, str]] = ..., importance_weighted: _Optional[bool] = ..., adaptive: _Optional[_Union[AdaptiveKlConfig, _Mapping]] = ...) -> None: ...

class AdaptiveKlConfig(_message.Message):
    __slots__ = ("target", "horizon")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    target: float
    horizon: float
    def __init__(self, target: _Optional[float] = ..., horizon: _Optional[float] = ...) -> None: ...

class SftConfig(_message.Message):
    __slots__ = ("updates", "passes", "sequences", "aggregation", "turns", "train_on_prompt")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    AGGREGATION_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    TRAIN_ON_PROMPT_FIELD_NUMBER: _ClassVar[int]
    updates: int
    passes: float
    sequences: int
    aggregation: Aggregation
    turns: LearnedTurns
    train_on_prompt: bool
    def __init__(self, updates: _Optional[int] = ..., passes: _Optional[float] = ..., sequences: _Optional[int] = ..., aggregation: _Optional[_Union[Aggregation, str]] = ..., turns: _Optional[_Union[LearnedTurns, str]] = ..., train_on_prompt: _Optional[bool] = ...) -> None: ...

class DpoConfig(_message.Message):
    __slots__ = ("updates", "passes", "pairs", "beta", "loss", "label_smoothing", "reference_free")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    LABEL_SMOOTHING_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FREE_FIELD_NUMBER: _ClassVar[int]
    updates: int
    passes: float
    pairs: int
    beta: float
    loss: DpoLoss
    label_smoothing: float
    reference_free: bool
    def __init__(self, updates: _Optional[int] = ..., passes: _Optional[float] = ..., pairs: _Optional[int] = ..., beta: _Optional[float] = ..., loss: _Optional[_Union[DpoLoss, str]] = ..., label_smoothing: _Optional[float] = ..., reference_free: _Optional[bool] = ...) -> None: ...

class KtoConfig(_message.Message):
    __slots__ = ("updates", "passes", "sequences", "beta", "desirable_weight", "undesirable_weight")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    DESIRABLE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    UNDESIRABLE_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    updates: int
    passes: float
    sequences: int
    beta: float
    desirable_weight: float
    undesirable_weight: float
    def __init__(self, updates: _Optional[int] = ..., passes: _Optional[float] = ..., sequences: _Optional[int] = ..., beta: _Optional[float] = ..., desirable_weight: _Optional[float] = ..., undesirable_weight: _Optional[float] = ...) -> None: ...

class OrpoConfig(_message.Message):
    __slots__ = ("updates", "passes", "pairs", "beta")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    updates: int
    passes: float
    pairs: int
    beta: float
    def __init__(self, updates: _Optional[int] = ..., passes: _Optional[float] = ..., pairs: _Optional[int] = ..., beta: _Optional[float] = ...) -> None: ...

class SimpoConfig(_message.Message):
    __slots__ = ("updates", "passes", "pairs", "beta", "gamma")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    BETA_FIELD_NUMBER: _ClassVar[int]
    GAMMA_FIELD_NUMBER: _ClassVar[int]
    updates: int
    passes: float
    pairs: int
    beta: float
    gamma: float
    def __init__(self, updates: _Optional[int] = ..., passes: _Optional[float] = ..., pairs: _Optional[int] = ..., beta: _Optional[float] = ..., gamma: _Optional[float] = ...) -> None: ...

class RewardModelConfig(_message.Message):
    __slots__ = ("updates", "passes", "pairs", "center_coefficient")
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    PASSES_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    CENTER_COEFFICIENT_FIELD_NUMBER: _ClassVar[int]
    updates: int
    passes: float
    pairs: int
    center_coefficient: float
    def __init__(self, updates: _Optional[int] = ..., passes: _Optional[float] = ..., pairs: _Optional[int] = ..., center_coefficient: _Optional[float] = ...) -> None: ...

class EvaluateConfig(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RewardConfig(_message.Message):
    __slots__ = ("exact_match", "regex", "numeric", "boxed_math", "format", "length", "remote", "weight", "name", "timeout_seconds")
    EXACT_MATCH_FIELD_NUMBER: _ClassVar[int]
    REGEX_FIELD_NUMBER: _ClassVar[int]
    NUMERIC_FIELD_NUMBER: _ClassVar[int]
    BOXED_MATH_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    REMOTE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    exact_match: ExactMatchReward
    regex: RegexReward
    numeric: NumericReward
    boxed_math: BoxedMathReward
    format: FormatReward
    length: LengthReward
    remote: RemoteReward
    weight: float
    name: str
    timeout_seconds: float
    def __init__(self, exact_match: _Optional[_Union[ExactMatchReward, _Mapping]] = ..., regex: _Optional[_Union[RegexReward, _Mapping]] = ..., numeric: _Optional[_Union[NumericReward, _Mapping]] = ..., boxed_math: _Optional[_Union[BoxedMathReward, _Mapping]] = ..., format: _Optional[_Union[FormatReward, _Mapping]] = ..., length: _Optional[_Union[LengthReward, _Mapping]] = ..., remote: _Optional[_Union[RemoteReward, _Mapping]] = ..., weight: _Optional[float] = ..., name: _Optional[str] = ..., timeout_seconds: _Optional[float] = ...) -> None: ...

class ExactMatchReward(_message.Message):
    __slots__ = ("ignore_case", "last_line")
    IGNORE_CASE_FIELD_NUMBER: _ClassVar[int]
    LAST_LINE_FIELD_NUMBER: _ClassVar[int]
    ignore_case: bool
    last_line: bool
    def __init__(self, ignore_case: _Optional[bool] = ..., last_line: _Optional[bool] = ...) -> None: ...

class RegexReward(_message.Message):
    __slots__ = ("pattern",)
    PATTERN_FIELD_NUMBER: _ClassVar[int]
    pattern: str
    def __init__(self, pattern: _Optional[str] = ...) -> None: ...

class NumericReward(_message.Message):
    __slots__ = ("tolerance", "only_number")
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    ONLY_NUMBER_FIELD_NUMBER: _ClassVar[int]
    tolerance: float
    only_number: bool
    def __init__(self, tolerance: _Optional[float] = ..., only_number: _Optional[bool] = ...) -> None: ...

class BoxedMathReward(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FormatReward(_message.Message):
    __slots__ = ("regex",)
    REGEX_FIELD_NUMBER: _ClassVar[int]
    regex: str
    def __init__(self, regex: _Optional[str] = ...) -> None: ...

class LengthReward(_message.Message):
    __slots__ = ("max_tokens", "buffer_tokens", "min_tokens")
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    BUFFER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    buffer_tokens: int
    min_tokens: int
    def __init__(self, max_tokens: _Optional[int] = ..., buffer_tokens: _Optional[int] = ..., min_tokens: _Optional[int] = ...) -> None: ...

class RemoteReward(_message.Message):
    __slots__ = ("address",)
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    address: str
    def __init__(self, address: _Optional[str] = ...) -> None: ...

class TrainerConfig(_message.Message):
    __slots__ = ("learning_rate", "schedule", "beta1", "beta2", "epsilon", "weight_decay", "max_grad_norm", "microbatch_tokens", "recompute")
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    BETA1_FIELD_NUMBER: _ClassVar[int]
    BETA2_FIELD_NUMBER: _ClassVar[int]
    EPSILON_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    MAX_GRAD_NORM_FIELD_NUMBER: _ClassVar[int]
    MICROBATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    RECOMPUTE_FIELD_NUMBER: _ClassVar[int]
    learning_rate: float
    schedule: ScheduleConfig
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    max_grad_norm: float
    microbatch_tokens: int
    recompute: bool
    def __init__(self, learning_rate: _Optional[float] = ..., schedule: _Optional[_Union[ScheduleConfig, _Mapping]] = ..., beta1: _Optional[float] = ..., beta2: _Optional[float] = ..., epsilon: _Optional[float] = ..., weight_decay: _Optional[float] = ..., max_grad_norm: _Optional[float] = ..., microbatch_tokens: _Optional[int] = ..., recompute: _Optional[bool] = ...) -> None: ...

class ScheduleConfig(_message.Message):
    __slots__ = ("constant", "linear", "cosine", "wsd")
    CONSTANT_FIELD_NUMBER: _ClassVar[int]
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    COSINE_FIELD_NUMBER: _ClassVar[int]
    WSD_FIELD_NUMBER: _ClassVar[int]
    constant: ConstantSchedule
    linear: DecaySchedule
    cosine: DecaySchedule
    wsd: WsdSchedule
    def __init__(self, constant: _Optional[_Union[ConstantSchedule, _Mapping]] = ..., linear: _Optional[_Union[DecaySchedule, _Mapping]] = ..., cosine: _Optional[_Union[DecaySchedule, _Mapping]] = ..., wsd: _Optional[_Union[WsdSchedule, _Mapping]] = ...) -> None: ...

class ConstantSchedule(_message.Message):
    __slots__ = ("warmup",)
    WARMUP_FIELD_NUMBER: _ClassVar[int]
    warmup: int
    def __init__(self, warmup: _Optional[int] = ...) -> None: ...

class DecaySchedule(_message.Message):
    __slots__ = ("warmup", "final")
    WARMUP_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    warmup: int
    final: float
    def __init__(self, warmup: _Optional[int] = ..., final: _Optional[float] = ...) -> None: ...

class WsdSchedule(_message.Message):
    __slots__ = ("warmup", "decay", "final")
    WARMUP_FIELD_NUMBER: _ClassVar[int]
    DECAY_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    warmup: int
    decay: int
    final: float
    def __init__(self, warmup: _Optional[int] = ..., decay: _Optional[int] = ..., final: _Optional[float] = ...) -> None: ...

class RolloutConfig(_message.Message):
    __slots__ = ("kv_tokens", "max_running", "step_tokens", "prefix_cache", "page_tokens", "max_waiting")
    KV_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_RUNNING_FIELD_NUMBER: _ClassVar[int]
    STEP_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_CACHE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_WAITING_FIELD_NUMBER: _ClassVar[int]
    kv_tokens: int
    max_running: int
    step_tokens: int
    prefix_cache: bool
    page_tokens: int
    max_waiting: int
    def __init__(self, kv_tokens: _Optional[int] = ..., max_running: _Optional[int] = ..., step_tokens: _Optional[int] = ..., prefix_cache: _Optional[bool] = ..., page_tokens: _Optional[int] = ..., max_waiting: _Optional[int] = ...) -> None: ...

class EvalConfig(_message.Message):
    __slots__ = ("every", "temperature", "max_completion_tokens", "accuracy")
    EVERY_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    MAX_COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    every: int
    temperature: float
    max_completion_tokens: int
    accuracy: str
    def __init__(self, every: _Optional[int] = ..., temperature: _Optional[float] = ..., max_completion_tokens: _Optional[int] = ..., accuracy: _Optional[str] = ...) -> None: ...

class CheckpointConfig(_message.Message):
    __slots__ = ("every", "keep", "keep_rollouts")
    EVERY_FIELD_NUMBER: _ClassVar[int]
    KEEP_FIELD_NUMBER: _ClassVar[int]
    KEEP_ROLLOUTS_FIELD_NUMBER: _ClassVar[int]
    every: int
    keep: int
    keep_rollouts: int
    def __init__(self, every: _Optional[int] = ..., keep: _Optional[int] = ..., keep_rollouts: _Optional[int] = ...) -> None: ...

class PlacementConfig(_message.Message):
    __slots__ = ("mode", "trainer", "rollout", "reference")
    MODE_FIELD_NUMBER: _ClassVar[int]
    TRAINER_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    mode: str
    trainer: _containers.RepeatedScalarFieldContainer[str]
    rollout: _containers.RepeatedScalarFieldContainer[str]
    reference: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, mode: _Optional[str] = ..., trainer: _Optional[_Iterable[str]] = ..., rollout: _Optional[_Iterable[str]] = ..., reference: _Optional[_Iterable[str]] = ...) -> None: ...

class FailureConfig(_message.Message):
    __slots__ = ("max_skipped_updates", "max_attempts")
    MAX_SKIPPED_UPDATES_FIELD_NUMBER: _ClassVar[int]
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    max_skipped_updates: int
    max_attempts: int
    def __init__(self, max_skipped_updates: _Optional[int] = ..., max_attempts: _Optional[int] = ...) -> None: ...
