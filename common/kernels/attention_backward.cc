#include "common/kernels/attention_backward.h"

#include <cuda_runtime_api.h>
#include <cudnn_frontend.h>
#include <dlfcn.h>

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "common/kernels/attention_gradient.h"
#include "common/kernels/attention_gradient_hopper.h"
#include "common/kernels/exactness.h"
#include "common/kernels/hopper.h"
#include "common/kernels/ragged_offsets.h"
#include "common/status/status_macros.h"

namespace cudnn_frontend {
// The frontend looks its functions up here; LibTorch has the library loaded already.
void* cudnn_dlhandle = dlopen("libcudnn.so.9", RTLD_NOW);
}  // namespace cudnn_frontend

namespace rein::kernels {
namespace {

namespace fe = cudnn_frontend;
using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

// Tensors of the graph by number.
enum Id : int64_t {
  kQ = 1, kK, kV, kOut, kDOut, kLse, kDQ, kDK, kDV, kQueryLength, kKeyLength, kQOffset, kKOffset, kVOffset, kOutOffset, kDQOffset, kDKOffset, kDVOffset, kLseOffset
};

// The offsets that RaggedOffsets() makes, in its order: of q, k and v as they come, and of what is dense.
constexpr int64_t kOffsets[kRaggedTensors] = {kQOffset, kKOffset, kVOffset, kOutOffset, kDQOffset, kDKOffset, kDVOffset, kLseOffset};
constexpr bool kOfKeys[kRaggedTensors] = {false, true, true, false, false, true, true, false};

absl::Status Check(fe::error_t error) {
  if (error.is_good()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("AttendBackward: cuDNN: ", error.get_message()));
}

// The sizes that a plan is built for, few of them: building one takes about a second. What is beyond the run's own
// costs a launch of blocks that end at once.
struct Sizes {
  int64_t sequences, longest_query, longest_key, tokens;

  explicit Sizes(const AttentionBackward& run)
      : sequences(PlannedAbove(run.sequences, 4, 4)),
        longest_query(PlannedLength(run.longest_query)),
        longest_key(PlannedLength(run.longest_key)),
        tokens(PlannedTokens(run.tokens)) {}
};

class Plan {
 public:
  static absl::StatusOr<std::unique_ptr<Plan>> Build(const AttentionBackward& run, const Sizes& sizes,
                                                     cudnnHandle_t handle) {
    auto plan = std::make_unique<Plan>();
    fe::graph::Graph& graph = plan->graph_;
    graph.set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    const int64_t b = sizes.sequences, c = run.head_dim, cv = run.value_dim;
    const int64_t queries = sizes.longest_query, keys = sizes.longest_key;
    auto integers = [&](int64_t id, int64_t count) {
      return graph.tensor(fe::graph::Tensor_attributes()
                              .set_uid(id)
                              .set_dim({count, 1, 1, 1})
                              .set_stride({1, 1, 1, 1})
                              .set_data_type(fe::DataType_t::INT32));
    };
    std::unordered_map<int64_t, Tensor> offset;
    for (int64_t id : kOffsets) offset[id] = integers(id, b + 1);
    auto describe = [&](int64_t id, int64_t heads, int64_t length, int64_t width, int64_t token_stride, int64_t offset_id) {
      return fe::graph::Tensor_attributes()
          .set_uid(id)
          .set_dim({b, heads, length, width})
          .set_stride({length * token_stride, width, token_stride, 1})
          .set_ragged_offset(offset[offset_id]);
    };
    Tensor q = graph.tensor(describe(kQ, run.heads, queries, c, run.q_stride, kQOffset));
    Tensor k = graph.tensor(describe(kK, run.kv_heads, keys, c, run.k_stride, kKOffset));
    Tensor v = graph.tensor(describe(kV, run.kv_heads, keys, cv, run.v_stride, kVOffset));
    Tensor out = graph.tensor(describe(kOut, run.heads, queries, cv, run.heads * cv, kOutOffset));
    Tensor dout = graph.tensor(describe(kDOut, run.heads, queries, cv, run.heads * cv, kOutOffset));
    Tensor lse = graph.tensor(fe::graph::Tensor_attributes()
                                  .set_uid(kLse)
                                  .set_dim({b, run.heads, queries, 1})
                                  .set_stride({queries * run.heads, 1, run.heads, 1})
                                  .set_data_type(fe::DataType_t::FLOAT)
                                  .set_ragged_offset(offset[kLseOffset]));
    Tensor query_length = integers(kQueryLength, b), key_length = integers(kKeyLength, b);
    auto options = fe::graph::SDPA_backward_attributes()
                       .set_name("attention_backward")
                       .set_causal_mask(run.causal)
                       .set_attn_scale(run.scale)
                       .set_padding_mask(true)
                       .set_seq_len_q(query_length)
                       .set_seq_len_kv(key_length)
                       .set_max_total_seq_len_q(sizes.tokens)
                       .set_max_total_seq_len_kv(sizes.tokens)
                       .set_deterministic_algorithm(KeepsBits());
    if (run.rule.window > 0) options.set_diagonal_band_left_bound(run.rule.window);
    auto [dq, dk, dv] = graph.sdpa_backward(q, k, v, out, dout, lse, options);
    auto gradient = [&](Tensor& tensor, int64_t id, int64_t heads, int64_t length, int64_t width, int64_t offset_id) {
      tensor->set_output(true)
          .set_uid(id)
          .set_dim({b, heads, length, width})
          .set_stride({length * heads * width, width, heads * width, 1})
          .set_ragged_offset(offset[offset_id]);
    };
    gradient(dq, kDQ, run.heads, queries, c, kDQOffset);
    gradient(dk, kDK, run.kv_heads, keys, c, kDKOffset);
    gradient(dv, kDV, run.kv_heads, keys, cv, kDVOffset);
    REIN_RETURN_IF_ERROR(Check(graph.validate()));
    REIN_RETURN_IF_ERROR(Check(graph.build_operation_graph(handle)));
    REIN_RETURN_IF_ERROR(Check(graph.create_execution_plans({fe::HeurMode_t::A})));
    REIN_RETURN_IF_ERROR(Check(graph.check_support(handle)));
    REIN_RETURN_IF_ERROR(Check(graph.build_plans(handle)));
    REIN_RETURN_IF_ERROR(Check(graph.get_workspace_size(plan->workspace_bytes_)));
    return plan;
  }

  int64_t workspace_bytes() const { return workspace_bytes_; }

  absl::Status Run(const AttentionBackward& run, int32_t* query_length, int32_t* key_length,
                   int32_t* const (&offsets)[kRaggedTensors], void* workspace, cudnnHandle_t handle) {
    auto writable = [](const void* pointer) { return const_cast<void*>(pointer); };
    std::unordered_map<int64_t, void*> tensors = {
        {kQ, writable(run.q)}, {kK, writable(run.k)}, {kV, writable(run.v)}, {kOut, writable(run.out)},
        {kDOut, writable(run.dout)}, {kLse, writable(run.lse)}, {kDQ, run.dq}, {kDK, run.dk}, {kDV, run.dv},
        {kQueryLength, query_length}, {kKeyLength, key_length}};
    for (int i = 0; i < kRaggedTensors; ++i) tensors[kOffsets[i]] = offsets[i];
    return Check(graph_.execute(handle, tensors, workspace));
  }

 private:
  fe::graph::Graph graph_;
  int64_t workspace_bytes_ = 0;
};

// The plans of one device.
struct Plans {
  using Key = std::tuple<bool, bool, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, int64_t, float>;

  std::mutex mutex;
  cudnnHandle_t handle = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans;
  std::set<Key> refused;  // windows and head dims that cuDNN does not take
};

absl::StatusOr<Plans*> PlansOfCurrentDevice() {
  static auto& mutex = *new std::mutex();
  static auto& all = *new std::map<int, Plans>();
  int device = 0;
  cudaGetDevice(&device);
  std::lock_guard<std::mutex> lock(mutex);
  Plans& plans = all[device];
  if (plans.handle != nullptr) return &plans;
  if (fe::cudnn_dlhandle == nullptr) {
    return absl::FailedPreconditionError("AttendBackward: libcudnn.so.9 is not to be found");
  }
  if (fe::detail::create_handle(&plans.handle) != CUDNN_STATUS_SUCCESS) {
    return absl::InternalError("AttendBackward: cuDNN gives no handle");
  }
  return &plans;
}

}  // namespace

namespace {

// Whether cuDNN is asked: on Hopper alone. Sinks change nothing for it: they are in the log-sum-exp.
bool CudnnTakes(const AttentionBackward& run) {
  return IsHopper() && !run.rule.bends_scores();
}

// False in `*taken` where cuDNN has no plan for a window or a head dim.
absl::Status ByCudnn(const AttentionBackward& run, const std::function<void*(int64_t bytes)>& allocate, void* stream,
                     bool* taken) {
  *taken = true;
  REIN_ASSIGN_OR_RETURN(Plans * plans, PlansOfCurrentDevice());
  std::lock_guard<std::mutex> lock(plans->mutex);
  const Sizes sizes(run);
  const Plans::Key key{KeepsBits(), run.causal, run.rule.window, sizes.sequences, sizes.longest_query, sizes.longest_key, sizes.tokens,
                       run.heads, run.kv_heads, run.head_dim, run.value_dim, run.q_stride, run.k_stride, run.v_stride, run.scale};
  if (plans->refused.count(key) > 0) {
    *taken = false;
    return absl::OkStatus();
  }
  std::unique_ptr<Plan>& plan = plans->plans[key];
  if (plan == nullptr) {
    auto built = Plan::Build(run, sizes, plans->handle);
    const bool common = run.rule.window == 0 && run.head_dim == run.value_dim && (run.head_dim == 64 || run.head_dim == 128);
    if (!built.ok() && !common) {
      plans->refused.insert(key);
      *taken = false;
      return absl::OkStatus();
    }
    REIN_ASSIGN_OR_RETURN(plan, std::move(built));
  }
  const int64_t padded = sizes.sequences;
  auto* query_length = static_cast<int32_t*>(allocate(4 * (2 * padded + kRaggedTensors * (padded + 1))));
  int32_t *key_length = query_length + padded, *offset = key_length + padded;
  int32_t* offsets[kRaggedTensors];
  for (int i = 0; i < kRaggedTensors; ++i) offsets[i] = offset + i * (padded + 1);
  REIN_RETURN_IF_ERROR(RaggedOffsets(run.query, run.key, run.sequences, padded,
                                     {run.q_stride, run.k_stride, run.v_stride, run.heads * run.value_dim, run.heads * run.head_dim,
                                      run.kv_heads * run.head_dim, run.kv_heads * run.value_dim, run.heads},
                                     kOfKeys, query_length, key_length, offset, stream));
  if (fe::detail::set_stream(plans->handle, static_cast<cudaStream_t>(stream)) != CUDNN_STATUS_SUCCESS) {
    return absl::InternalError("AttendBackward: cuDNN refuses the stream");
  }
  return plan->Run(run, query_length, key_length, offsets, allocate(plan->workspace_bytes()), plans->handle);
}

}  // namespace

absl::Status AttendBackward(const AttentionBackward& run,
                            const std::function<void*(int64_t bytes)>& allocate, void* stream) {
  if (run.tokens == 0) return absl::OkStatus();
  const bool hopper = HopperBackwardTakes(run);
  bool taken = false;
  if (!hopper && CudnnTakes(run)) REIN_RETURN_IF_ERROR(ByCudnn(run, allocate, stream, &taken));
  if (taken && run.dsinks == nullptr) return absl::OkStatus();
  if (run.head_dim != run.value_dim) {
    return absl::UnimplementedError(absl::StrCat("AttendBackward: keys of ", run.head_dim, " and values of ", run.value_dim, " on this GPU"));
  }
  auto* delta = static_cast<float*>(allocate(4 * run.tokens * run.heads));
  REIN_RETURN_IF_ERROR(SumOfGradients(run, delta, stream));
  if (hopper) {
    REIN_RETURN_IF_ERROR(AttendBackwardHopper(run, delta, allocate, stream));
  } else if (!taken) {
    REIN_RETURN_IF_ERROR(AttendBackwardByWarps(run, delta, stream));
  }
  return run.dsinks == nullptr ? absl::OkStatus() : SinkGradient(run, delta, stream);
}

}  // namespace rein::kernels
