#include "common/kernels/projection.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/kernels/choice_file.h"
#include "common/kernels/compare_bits.h"
#include "common/kernels/exactness.h"
#include "common/kernels/few_rows_projection.h"
#include "common/status/status_macros.h"

namespace rein::kernels {
namespace {

constexpr size_t kWorkspaceBytes = size_t{32} << 20;
constexpr int kCandidates = 24;             // of one number of rows
// What cuBLASLt proposes for these is tried for fewer rows too: some of it is faster there than its own proposals.
constexpr std::array<int64_t, 3> kProposedFor = {64, 128, 256};
constexpr int64_t kComparedRows = 32;       // at the beginning, and as many at the end
constexpr int64_t kPlainRows = 64;          // up to here the plain kernel is a candidate too
constexpr int64_t kColdRows = 256;          // up to here the weights come from memory, beyond it hardly matters
constexpr int64_t kLargestBucket = 16384;   // more rows run as this many
constexpr int kTimedRuns = 5;
constexpr double kHiddenUs = 1;             // of a launch that overlaps: not here, behind the clearing of memory, but in a step
constexpr int kCandidateSet = 2;            // choices from another set of candidates are not taken up
constexpr uint64_t kFewRows = 0x7377'6f72'7765'6621;  // no first word of cuBLASLt's

absl::Status Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("Projection: ", what, ": ", cudaGetErrorString(error)));
}

absl::Status Check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("Projection: ", what, ": cuBLASLt says ",
                                          cublasLtGetStatusString(status)));
}

// One product for cuBLASLt, which counts in columns: y^T [N, M] = W [N, K] x^T [K, M].
class Product {
 public:
  static absl::StatusOr<std::unique_ptr<Product>> Create(const Projection& run) {
    auto p = std::unique_ptr<Product>(new Product());
    REIN_RETURN_IF_ERROR(Check(
        cublasLtMatmulDescCreate(&p->description_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description"));
    const cublasOperation_t transposed = CUBLAS_OP_T;
    REIN_RETURN_IF_ERROR(p->Set(CUBLASLT_MATMUL_DESC_TRANSA, transposed));
    if (run.bias != nullptr) {
      const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
      REIN_RETURN_IF_ERROR(p->Set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue));
      REIN_RETURN_IF_ERROR(p->Set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, run.bias));
    }
    const auto m = static_cast<uint64_t>(run.rows), n = static_cast<uint64_t>(run.columns),
               k = static_cast<uint64_t>(run.inner);
    REIN_RETURN_IF_ERROR(Check(
        cublasLtMatrixLayoutCreate(&p->weight_, CUDA_R_16BF, k, n, run.inner), "layout"));
    REIN_RETURN_IF_ERROR(
        Check(cublasLtMatrixLayoutCreate(&p->x_, CUDA_R_16BF, k, m, run.inner), "layout"));
    REIN_RETURN_IF_ERROR(
        Check(cublasLtMatrixLayoutCreate(&p->y_, CUDA_R_16BF, n, m, run.columns), "layout"));
    return p;
  }
  ~Product() {
    if (description_ != nullptr) cublasLtMatmulDescDestroy(description_);
    for (cublasLtMatrixLayout_t layout : {weight_, x_, y_}) {
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    }
  }
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  // `exact`: only those that do not split the sum.
  std::vector<cublasLtMatmulAlgo_t> Candidates(cublasLtHandle_t handle, bool exact) const {
    cublasLtMatmulPreference_t preference = nullptr;
    if (cublasLtMatmulPreferenceCreate(&preference) != CUBLAS_STATUS_SUCCESS) return {};
    const uint32_t no_reduction = CUBLASLT_REDUCTION_SCHEME_NONE;
    cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                         &kWorkspaceBytes, sizeof(kWorkspaceBytes));
    if (exact) {
      cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                                           &no_reduction, sizeof(no_reduction));
    }
    std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found{};
    int count = 0;
    cublasLtMatmulAlgoGetHeuristic(handle, description_, weight_, x_, y_, y_, preference, kCandidates,
                                   found.data(), &count);
    cublasLtMatmulPreferenceDestroy(preference);
    std::vector<cublasLtMatmulAlgo_t> algorithms;
    for (int i = 0; i < count; ++i) {
      if (found[i].state == CUBLAS_STATUS_SUCCESS) algorithms.push_back(found[i].algo);
    }
    return algorithms;
  }

  cublasStatus_t Run(cublasLtHandle_t handle, const Projection& run,
                     const cublasLtMatmulAlgo_t& algorithm, void* workspace, cudaStream_t stream) const {
    const float one = 1, zero = 0;
    return cublasLtMatmul(handle, description_, &one, run.weight, weight_, run.x, x_, &zero, run.y, y_,
                          run.y, y_, &algorithm, workspace, kWorkspaceBytes, stream);
  }

 private:
  Product() = default;
  template <typename T>
  absl::Status Set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    return Check(cublasLtMatmulDescSetAttribute(description_, attribute, &value, sizeof(value)),
                 "attribute");
  }

  cublasLtMatmulDesc_t description_ = nullptr;
  cublasLtMatrixLayout_t weight_ = nullptr, x_ = nullptr, y_ = nullptr;
};

// What an algorithm does with an input.
enum class Verdict { kRefuses, kDiffers, kAgrees };

bool Takes(Verdict verdict) { return verdict == Verdict::kAgrees || (verdict == Verdict::kDiffers && !KeepsBits()); }

struct Choice {
  std::optional<cublasLtMatmulAlgo_t> algorithm;
  std::optional<FewRowsCut> few_rows;  // neither: the plain kernel
  std::string description;
  bool kept = false;  // an earlier process chose it
};

// The choices of one device.
class ProjectionPlans {
 public:
  static absl::StatusOr<std::unique_ptr<ProjectionPlans>> Create() {
    auto plans = std::unique_ptr<ProjectionPlans>(new ProjectionPlans());
    REIN_RETURN_IF_ERROR(Check(cublasLtCreate(&plans->handle_), "handle"));
    REIN_RETURN_IF_ERROR(Check(cudaMalloc(&plans->workspace_, kWorkspaceBytes), "workspace"));
    REIN_RETURN_IF_ERROR(Check(cudaStreamCreateWithFlags(&plans->capture_, cudaStreamNonBlocking), "stream"));
    int device = 0, cache_bytes = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, device);
    plans->flush_bytes_ = 2 * static_cast<size_t>(cache_bytes);
    cudaDeviceProp properties{};
    REIN_RETURN_IF_ERROR(Check(cudaGetDeviceProperties(&properties, device), "properties"));
    plans->kept_.emplace(CacheFolder(), absl::StrCat("projections-", kCandidateSet, "-", properties.name, "-cublaslt-", cublasLtGetVersion()));
    return plans;
  }

  absl::Status Run(const Projection& run, cudaStream_t stream) {
    const Key key{run.columns, run.inner, Bucket(run.rows), run.bias != nullptr, KeepsBits()};
    std::lock_guard<std::mutex> lock(mutex_);  // the workspace is one; launches are short
    if (auto it = choices_.find(key); it != choices_.end()) {
      absl::Status status = RunChoice(it->second, run, stream);
      if (!absl::IsUnimplemented(status)) return status;
      // What takes one number of rows may refuse another of the same bucket: the choice is made anew.
    }
    const std::string name = NameOf(key);
    REIN_ASSIGN_OR_RETURN(std::optional<Choice> choice, Choose(run, kept_->Find(name), stream));
    if (!choice.has_value()) return RunPlainProjection(run, stream);
    if (!choice->kept) kept_->Add(name, WordsOf(*choice));
    return RunChoice(choices_.insert_or_assign(key, *std::move(choice)).first->second, run, stream);
  }

  std::vector<std::string> Describe() {
    std::lock_guard<std::mutex> lock(mutex_);
    std::vector<std::string> lines;
    for (const auto& [key, choice] : choices_) {
      const auto& [columns, inner, bucket, bias, exact] = key;
      lines.push_back(absl::StrCat(columns, " x ", inner, bias ? " with bias" : "", exact ? "" : " of any bits",
                                   ", rows <= ", bucket, ": ", choice.description));
    }
    return lines;
  }

 private:
  using Key = std::tuple<int64_t, int64_t, int64_t, bool, bool>;

  ProjectionPlans() = default;

  static std::string NameOf(const Key& key) {
    return std::apply([](auto... parts) { return absl::StrJoin({absl::StrCat(parts)...}, " "); }, key);
  }
  // A cut for few rows has kFewRows in its first word.
  static ChoiceFile::Algorithm WordsOf(const Choice& choice) {
    ChoiceFile::Algorithm words{};
    static_assert(sizeof(words) == sizeof(choice.algorithm->data));
    if (choice.algorithm.has_value()) std::memcpy(words.data(), choice.algorithm->data, sizeof(words));
    if (choice.few_rows.has_value()) {
      words = {kFewRows, static_cast<uint64_t>(choice.few_rows->columns), static_cast<uint64_t>(choice.few_rows->rows)};
    }
    return words;
  }
  static Choice ChoiceOf(const ChoiceFile::Algorithm& words) {
    Choice choice;
    if (words == ChoiceFile::Algorithm{}) return choice;
    if (words[0] == kFewRows) {
      choice.few_rows = {static_cast<int>(words[1]), static_cast<int>(words[2])};
    } else {
      std::memcpy(choice.algorithm.emplace().data, words.data(), sizeof(words));
    }
    return choice;
  }

  static int64_t Bucket(int64_t rows) {
    if (rows == 1) return 1;
    int64_t bucket = 16;
    while (bucket < rows && bucket < kLargestBucket) bucket *= 2;
    return bucket;
  }

  // UNIMPLEMENTED when the algorithm refuses this number of rows.
  absl::Status RunChoice(const Choice& choice, const Projection& run, cudaStream_t stream) {
    if (choice.few_rows.has_value()) return RunFewRowsProjection(run, *choice.few_rows, stream);
    if (!choice.algorithm.has_value()) return RunPlainProjection(run, stream);
    REIN_ASSIGN_OR_RETURN(std::unique_ptr<Product> product, Product::Create(run));
    const cublasStatus_t status = product->Run(handle_, run, *choice.algorithm, workspace_, stream);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED) {
      return absl::UnimplementedError(absl::StrCat("Projection: cuBLASLt refuses ", run.rows, " rows"));
    }
    return Check(status, "product");
  }

  absl::StatusOr<std::vector<Choice>> Candidates(const Projection& run) const {
    std::vector<int64_t> rows{run.rows};
    for (int64_t more : kProposedFor) {
      if (more > run.rows) rows.push_back(more);
    }
    std::vector<cublasLtMatmulAlgo_t> all;
    for (int64_t count : rows) {
      Projection other = run;
      other.rows = count;
      REIN_ASSIGN_OR_RETURN(std::unique_ptr<Product> product, Product::Create(other));
      for (const cublasLtMatmulAlgo_t& one : product->Candidates(handle_, KeepsBits())) {
        auto same = [&](const cublasLtMatmulAlgo_t& known) {
          return std::equal(std::begin(one.data), std::end(one.data), std::begin(known.data));
        };
        if (std::none_of(all.begin(), all.end(), same)) all.push_back(one);
      }
    }
    std::vector<Choice> choices;
    for (const cublasLtMatmulAlgo_t& algorithm : all) choices.push_back({.algorithm = algorithm, .description = "cuBLASLt"});
    for (const FewRowsCut& cut : FewRowsCuts(run)) {
      choices.push_back({.few_rows = cut, .description = absl::StrFormat("few rows in blocks of %d x %d", cut.rows, cut.columns)});
    }
    return choices;
  }

  // Nothing when the input is no touchstone: its outputs are zeros, which every algorithm gets right.
  // `kept`: what an earlier process chose, which is taken if it still is right.
  absl::StatusOr<std::optional<Choice>> Choose(const Projection& run, const std::optional<ChoiceFile::Algorithm>& kept,
                                               cudaStream_t stream) {
    const auto begin = std::chrono::steady_clock::now();
    const int64_t compared = std::min(run.rows, kComparedRows);
    const size_t reference_bytes = static_cast<size_t>(4 * compared * run.columns + 255) / 256 * 256;
    const bool cold = run.rows <= kColdRows;
    void* memory = nullptr;
    REIN_RETURN_IF_ERROR(
        Check(cudaMallocAsync(&memory, reference_bytes + (cold ? flush_bytes_ : 0), stream), "memory"));
    auto* scratch = static_cast<char*>(memory);
    absl::StatusOr<std::optional<Choice>> choice =
        ChooseAgainst(run, kept, compared, scratch, cold ? scratch + reference_bytes : nullptr, stream);
    cudaFreeAsync(memory, stream);
    if (choice.ok() && choice->has_value()) {
      const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - begin;
      absl::StrAppendFormat(&(*choice)->description, ", chosen in %.0f ms", took.count());
    }
    return choice;
  }

  // `reference` takes the rows that are compared; clearing `flush`, unless it is null, leaves nothing of the weights
  // in the cache.
  absl::StatusOr<std::optional<Choice>> ChooseAgainst(const Projection& run,
                                                      const std::optional<ChoiceFile::Algorithm>& kept, int64_t compared,
                                                      char* reference, char* flush, cudaStream_t stream) {
    const size_t row_bytes = static_cast<size_t>(2 * run.columns);
    auto part = [&](const void* base, int64_t row, int64_t width) {
      return static_cast<char*>(const_cast<void*>(base)) + 2 * row * width;
    };
    const int64_t tail = run.rows - compared;  // first of the last rows
    for (int64_t first : {int64_t{0}, tail}) {
      Projection plain = run;
      plain.x = part(run.x, first, run.inner);
      plain.y = part(reference, first == 0 ? 0 : compared, run.columns);
      plain.rows = compared;
      REIN_RETURN_IF_ERROR(RunPlainProjection(plain, stream));
    }
    REIN_ASSIGN_OR_RETURN(bool zeros, AllZero(reference, static_cast<int64_t>(compared * row_bytes), stream));
    if (zeros) return std::optional<Choice>();

    // Whether the choice runs, and gives the bits of the plain kernel.
    auto agrees = [&](const Choice& choice) -> absl::StatusOr<Verdict> {
      if (!RunChoice(choice, run, stream).ok()) return Verdict::kRefuses;
      for (int64_t first : {int64_t{0}, tail}) {
        REIN_ASSIGN_OR_RETURN(
            bool same, SameBits(part(run.y, first, run.columns),
                                part(reference, first == 0 ? 0 : compared, run.columns),
                                static_cast<int64_t>(compared * row_bytes), stream));
        if (!same) return Verdict::kDiffers;
      }
      return Verdict::kAgrees;
    };
    if (kept.has_value()) {
      Choice choice = ChoiceOf(*kept);
      choice.kept = true;
      choice.description = "chosen earlier";
      REIN_ASSIGN_OR_RETURN(Verdict verdict, agrees(choice));
      if (Takes(verdict)) return std::optional<Choice>(std::move(choice));
    }
    Choice best{.description = "the plain kernel"};
    double best_us = std::numeric_limits<double>::infinity();
    double flush_us = 0;
    if (flush != nullptr) {
      REIN_ASSIGN_OR_RETURN(flush_us, Time(flush, [](cudaStream_t) { return absl::OkStatus(); }, stream));
    }
    auto time = [&](const Choice& choice) -> absl::StatusOr<double> {
      REIN_ASSIGN_OR_RETURN(double us, Time(flush, [&](cudaStream_t on) { return RunChoice(choice, run, on); }, stream));
      return us - flush_us - (choice.few_rows.has_value() ? kHiddenUs : 0);
    };
    if (run.rows <= kPlainRows) {
      REIN_ASSIGN_OR_RETURN(best_us, time(best));
    }
    int agree = 0, tried = 0;
    REIN_ASSIGN_OR_RETURN(std::vector<Choice> candidates, Candidates(run));
    for (Choice& candidate : candidates) {
      REIN_ASSIGN_OR_RETURN(Verdict verdict, agrees(candidate));
      tried += verdict != Verdict::kRefuses;
      agree += verdict == Verdict::kAgrees;
      if (!Takes(verdict)) continue;
      REIN_ASSIGN_OR_RETURN(double us, time(candidate));
      if (us < best_us) {
        best_us = us;
        best = std::move(candidate);
      }
    }
    absl::StrAppendFormat(&best.description, ", %d of %d candidates agree, %.1f us at %d rows", agree, tried, best_us, run.rows);
    return std::optional<Choice>(std::move(best));
  }

  // Microseconds of one run, the clearing of `flush` before it included. Runs are replayed from a graph: launched
  // one by one, the host's pace would be measured.
  template <typename Body>
  absl::StatusOr<double> Time(void* flush, Body body, cudaStream_t stream) {
    REIN_RETURN_IF_ERROR(Check(cudaStreamBeginCapture(capture_, cudaStreamCaptureModeThreadLocal), "capture"));
    absl::Status status;
    for (int i = 0; i < kTimedRuns; ++i) {
      if (flush != nullptr) cudaMemsetAsync(flush, 0, flush_bytes_, capture_);
      status.Update(body(capture_));
    }
    cudaGraph_t graph = nullptr;
    status.Update(Check(cudaStreamEndCapture(capture_, &graph), "capture"));
    cudaGraphExec_t replay = nullptr;
    if (status.ok()) status = Check(cudaGraphInstantiate(&replay, graph, 0), "graph");
    float milliseconds = 0;
    if (status.ok()) {
      cudaEvent_t begin = nullptr, end = nullptr;
      cudaEventCreate(&begin);
      cudaEventCreate(&end);
      cudaGraphLaunch(replay, stream);
      cudaEventRecord(begin, stream);
      cudaGraphLaunch(replay, stream);
      cudaEventRecord(end, stream);
      status = Check(cudaEventSynchronize(end), "run");
      cudaEventElapsedTime(&milliseconds, begin, end);
      cudaEventDestroy(begin);
      cudaEventDestroy(end);
      cudaGraphExecDestroy(replay);
    }
    if (graph != nullptr) cudaGraphDestroy(graph);
    if (!status.ok()) return status;
    return 1000.0 * milliseconds / kTimedRuns;
  }

  std::mutex mutex_;
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  cudaStream_t capture_ = nullptr;  // only captured from, never run on
  size_t flush_bytes_ = 0;
  std::map<Key, Choice> choices_;
  std::optional<ChoiceFile> kept_;  // of this GPU and library
};

// One table for each device, made at its first product and kept until the process ends: cuBLASLt's handle
// outlives whoever asks, and what was found out about a device holds for all.
struct PlansOfDevices {
  std::mutex mutex;
  std::map<int, std::unique_ptr<ProjectionPlans>> plans;
};

PlansOfDevices& AllPlans() {
  static auto& all = *new PlansOfDevices();
  return all;
}

absl::StatusOr<ProjectionPlans*> PlansOfCurrentDevice() {
  int device = 0;
  REIN_RETURN_IF_ERROR(Check(cudaGetDevice(&device), "device"));
  PlansOfDevices& all = AllPlans();
  std::lock_guard<std::mutex> lock(all.mutex);
  std::unique_ptr<ProjectionPlans>& plans = all.plans[device];
  if (plans == nullptr) {
    REIN_ASSIGN_OR_RETURN(plans, ProjectionPlans::Create());
  }
  return plans.get();
}

}  // namespace

absl::Status RunProjection(const Projection& run, void* stream) {
  if (run.rows == 0) return absl::OkStatus();
  REIN_ASSIGN_OR_RETURN(ProjectionPlans * plans, PlansOfCurrentDevice());
  return plans->Run(run, static_cast<cudaStream_t>(stream));
}

std::vector<std::string> ChosenProjections() {
  absl::StatusOr<ProjectionPlans*> plans = PlansOfCurrentDevice();
  return plans.ok() ? (*plans)->Describe() : std::vector<std::string>();
}

}  // namespace rein::kernels
