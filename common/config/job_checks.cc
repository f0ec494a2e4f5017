#include "common/config/job_checks.h"

#include <algorithm>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/config/algorithm_checks.h"
#include "common/config/corpus_split.h"
#include "common/config/host_port.h"
#include "common/config/job_kind.h"
#include "common/config/job_reader.h"
#include "common/config/name.h"
#include "common/config/nearest_name.h"
#include "common/config/reward_checks.h"
#include "common/config/schema.h"

namespace rein::config {
namespace {

class JobChecker {
 public:
  JobChecker(const v1::JobConfig& job, const Places& places, Problems& problems)
      : job_(job), places_(places), problems_(problems) {}

  void CheckAll() {
    CheckName();
    CheckModel();
    CheckRewards(job_, [this](const std::string& key, const std::string& text) { Add(key, text); });
    CheckEnvironment();
    CheckEval();
    CheckPlacement();
    CheckLengths();
    CheckTruncation();
    if (const v1::GrpoConfig* config = PolicyGradientOf(job_)) CheckAlgorithm(*config);
    if (TextJobOf(job_)) CheckTexts(*TextJobOf(job_));
    if (job_.has_pretrain()) CheckPretrain();
    if (job_.has_evaluate()) CheckEvaluate();
    if (job_.has_generate() || job_.has_score()) CheckGoesThrough();
  }

 private:
  bool Given(const std::string& key) const { return places_.count(key) > 0; }

  // At `key`, or at its nearest ancestor that the user gave.
  void Add(const std::string& key, const std::string& text) {
    std::string at = key;
    while (!at.empty() && !Given(at)) {
      size_t dot = at.rfind('.');
      at = dot == std::string::npos ? "" : at.substr(0, dot);
    }
    auto found = places_.find(at);
    problems_.Add(found == places_.end() ? Place{1, 1} : found->second, key, text);
  }

  void CheckName() {
    const std::string& name = job_.name();
    if (Given("name") && !IsName(name)) Add("name", absl::StrCat("wants ", kNameRule, "; got '", name, "'"));
  }

  bool Generates() const {
    return PolicyGradientOf(job_) != nullptr || job_.has_evaluate() || job_.has_generate() ||
           (job_.data().has_eval() && !job_.rewards().empty());
  }

  void CheckModel() {
    const v1::ModelConfig& model = job_.model();
    if (!job_.has_model()) return;
    int sources = model.has_path() + model.has_config() + model.has_job();
    if (sources != 1) {
      Add("model", sources == 0 ? "wants one of path, config or job"
                                : "wants only one of path, config and job");
    }
    if (model.has_checkpoint() && !model.has_job()) {
      Add("model.checkpoint", "has no effect without model.job");
    }
    if (model.has_dtype() && model.dtype() != "float32" && model.dtype() != "bfloat16") {
      Add("model.dtype", absl::StrCat("wants float32 or bfloat16, got ", model.dtype()));
    }
    const bool trains = !job_.has_evaluate() && !job_.has_generate() && !job_.has_score();
    for (auto [key, given] : {std::pair{"model.lora", model.has_lora()}, {"model.freeze", model.freeze_size() > 0},
                              {"model.base", model.has_base()}}) {
      if (given && model.has_config()) {
        Add(key, "wants a model with weights (model.path or model.job): random weights are all trained");
      }
      if (given && !trains) Add(key, absl::StrCat("has no effect: ", KindOf(job_), " trains nothing; an adapter folder is used as model.path"));
    }
    if (model.kv_cache() == v1::KV_FORMAT_FP8_ROLLOUT && !Generates()) {
      Add("model.kv_cache", absl::StrCat("fp8_rollout has no effect in ", KindOf(job_), ", which generates nothing; fp8 rounds in training too"));
    }
    if (job_.trainer().mtp_loss() > 0 && !job_.has_sft() && !job_.has_pretrain()) {
      Add("trainer.mtp_loss", absl::StrCat("has no place in ", KindOf(job_), ": want sft or pretrain"));
    }
    if (job_.trainer().mtp_loss() > 0 && !model.mtp()) {
      Add("trainer.mtp_loss", "wants model.mtp: true: no layer of multi-token prediction is loaded");
    }
    if (model.mtp() && job_.trainer().mtp_loss() == 0 && job_.trainer().weight_decay() > 0) {
      Add("trainer.weight_decay", "would shrink the layers of model.mtp, which nothing else moves without trainer.mtp_loss");
    }
    if (model.mtp() && model.has_lora()) Add("model.mtp", "cannot stand beside model.lora: PEFT knows no such layers");
    if (job_.trainer().router().replay() && PolicyGradientOf(job_) == nullptr) {
      Add("trainer.router.replay", absl::StrCat("has no place in ", KindOf(job_), ": no generator has chosen experts"));
    }
    if (job_.trainer().router().capacity_factor() > 0 && PolicyGradientOf(job_) != nullptr) {
      Add("trainer.router.capacity_factor", absl::StrCat("has no place in ", KindOf(job_),
                                                         ": the generator drops nothing, so its log-probs would be other ones"));
    }
    const v1::TrainerConfig& trainer = job_.trainer();
    if (trainer.has_moments() && trainer.moments() != "float32" && trainer.moments() != "bfloat16") {
      Add("trainer.moments", absl::StrCat("wants float32 or bfloat16, got ", trainer.moments()));
    }
    double share = 0;
    const bool number = absl::SimpleAtod(trainer.offload(), &share) && share >= 0 && share <= 1;
    if (trainer.has_offload() && !number && trainer.offload() != "auto") {
      Add("trainer.offload", absl::StrCat("wants a number in [0, 1] or auto, got ", trainer.offload()));
    }
    if (const v1::GrpoConfig* rl = PolicyGradientOf(job_); rl != nullptr && rl->critic().lora().dropout() > 0) {
      Add("ppo.critic.lora.dropout", absl::StrCat("is ", rl->critic().lora().dropout(), ", want 0: values would be noisy"));
    }
    if (model.lora().dropout() > 0) {
      Add("model.lora.dropout", absl::StrCat("is ", model.lora().dropout(),
                                             ", want 0: the trainer's log-probs would differ from the generator's"));
    }
  }

  // What answers the policy between its turns.
  void CheckEnvironment() {
    for (int i = 0; i < job_.rewards_size(); ++i) {
      if (!job_.rewards(i).has_environment() || job_.has_environment()) continue;
      Add(absl::StrCat("rewards.", i, ".environment"), "wants an environment, and there is none: the key `environment`");
    }
    for (int i = 0; i < job_.rewards_size(); ++i) {
      if (!job_.rewards(i).model().has_steps()) continue;
      const std::string key = absl::StrCat("rewards.", i, ".model.steps");
      if (job_.has_environment()) Add(key, "cannot stand beside an environment: turns are its steps");
      if (job_.rewards(i).model().steps().separator().empty()) {
        Add(key + ".separator", "is empty: nothing would end a step");
      }
    }
    if (!job_.has_environment()) return;
    const v1::EnvironmentConfig& environment = job_.environment();
    const std::string kind = KindOf(job_);
    if (!Generates()) Add("environment", absl::StrCat("has no effect in ", kind, ", which generates nothing"));
    const std::string& address = environment.remote().address();
    if (!address.empty() && !IsHostPort(address)) {
      Add("environment.remote.address", absl::StrCat("wants host:port, got '", address, "'"));
    }
    const v1::GrpoConfig* rl = PolicyGradientOf(job_);
    const uint64_t turn = rl != nullptr         ? rl->max_completion_tokens()
                          : job_.has_generate() ? job_.generate().max_completion_tokens()
                                                : 0;
    if (environment.has_max_tokens() && environment.max_tokens() < turn) {
      Add("environment.max_tokens", absl::StrCat("is ", environment.max_tokens(), ", less than the ", turn,
                                                 " tokens of one turn (", kind, ".max_completion_tokens)"));
    }
    if (environment.step_timeout_seconds() > environment.timeout_seconds()) {
      Add("environment.step_timeout_seconds",
          absl::StrCat("is ", environment.step_timeout_seconds(), ", more than timeout_seconds ",
                       environment.timeout_seconds(), " of the whole episode"));
    }
    if (!environment.has_tools()) return;
    if (!environment.tools().has_calculator() && !environment.tools().has_code()) {
      Add("environment.tools", "wants at least one tool: calculator: {}, code: {seconds: 5}");
    }
    for (const auto& [key, data] : {std::pair("data.train", &job_.data().train()), {"data.eval", &job_.data().eval()}}) {
      if (Given(key) && data->has_chat_template() && !data->chat_template()) {
        Add(absl::StrCat(key, ".chat_template"), "is false, but environment.tools are shown by the chat template");
      }
    }
  }

  void CheckEval() {
    const bool goes_through = job_.has_generate() || job_.has_score();
    bool has_data = job_.data().has_eval() && !goes_through;
    if (job_.eval().every() > 0 && !has_data && !HoldsOut(job_)) {
      Add("eval.every", job_.has_pretrain() ? "has no effect without a held-out share: pretrain.split"
                                            : "has no effect without data.eval");
    }
    if (has_data && job_.rewards().empty() && !LearnsAnswers(job_) && !MeasuresHeldOut(job_)) {
      Add("data.eval", "is scored by rewards, and there are none: add rewards, or leave it out");
    }
    CheckEvalSettings(has_data && !job_.rewards().empty());
    if (job_.eval().patience() > 0) {
      const bool loss = (LearnsAnswers(job_) && has_data) || HoldsOut(job_) || MeasuresHeldOut(job_);
      if (!loss) Add("eval.patience", "watches the held-out loss, and there is none");
      if (loss && job_.eval().every() == 0) Add("eval.patience", "wants eval.every above 0");
    }
    if (!job_.eval().has_accuracy()) return;
    std::vector<std::string> names;
    for (const v1::RewardConfig& reward : job_.rewards()) names.push_back(NameOfReward(reward));
    const std::string& wanted = job_.eval().accuracy();
    if (std::find(names.begin(), names.end(), wanted) == names.end()) {
      std::string nearest = NearestName(wanted, names);
      Add("eval.accuracy", absl::StrCat("names no reward: ", wanted,
                                        nearest.empty() ? "" : "; did you mean " + nearest + "?"));
    }
  }

  // How held-out prompts are sampled; `generates`: whether they are.
  void CheckEvalSettings(bool generates) {
    const v1::EvalConfig& eval = job_.eval();
    for (const char* key : {"eval.settings", "eval.datasets", "eval.pass_at"}) {
      if (Given(key) && !generates) Add(key, "has no effect without data.eval and rewards");
    }
    uint32_t most = eval.samples();
    std::set<std::string> names = {"", "eval"};
    for (int i = 0; i < eval.settings_size(); ++i) {
      const v1::EvalSampling& setting = eval.settings(i);
      most = std::max(most, setting.samples());
      if (!names.insert(setting.name()).second) {
        Add(absl::StrCat("eval.settings.", i, ".name"), absl::StrCat("stands twice: ", setting.name()));
      }
      CheckSamples(absl::StrCat("eval.settings.", i, ".samples"), setting.samples(), setting.temperature());
    }
    CheckSamples("eval.samples", eval.samples(), eval.temperature());
    for (int i = 0; i < eval.pass_at_size(); ++i) {
      if (eval.pass_at(i) > most) {
        Add(absl::StrCat("eval.pass_at.", i),
            absl::StrCat("is ", eval.pass_at(i), ", more than the ", most, " samples of a prompt"));
      }
    }
    std::set<std::string> datasets = {job_.data().eval().has_name() ? job_.data().eval().name() : "eval"};
    for (int i = 0; i < eval.datasets_size(); ++i) {
      const std::string key = absl::StrCat("eval.datasets.", i);
      if (eval.datasets(i).name().empty()) {
        Add(key, "wants a name, which results are shown under");
      } else if (!datasets.insert(eval.datasets(i).name()).second) {
        Add(key + ".name", absl::StrCat("stands twice: ", eval.datasets(i).name()));
      }
    }
    if (Given("data.train.name")) Add("data.train.name", "has no effect: only held-out data is shown by name");
  }

  void CheckSamples(const std::string& key, uint32_t samples, double temperature) {
    if (samples > 1 && temperature == 0) {
      Add(key, absl::StrCat("is ", samples, ", but at temperature 0 all completions of a prompt are equal"));
    }
  }

  void CheckPretrain() {
    const v1::PretrainConfig& pretrain = job_.pretrain();
    for (const char* key : {"data.train", "data.eval", "rewards"}) {
      if (Given(key)) Add(key, "has no effect in pretrain, which reads pretrain.corpus");
    }
    if (pretrain.corpus().empty()) {
      Add("pretrain.corpus", "is required: at least one .idx file");
    }
    absl::StatusOr<std::vector<double>> shares = SplitShares(pretrain.split());
    if (!shares.ok()) Add("pretrain.split", std::string(shares.status().message()));
    int weighted = 0;
    for (const v1::CorpusConfig& part : pretrain.corpus()) weighted += part.has_weight() ? 1 : 0;
    if (weighted > 0 && weighted < pretrain.corpus_size()) {
      Add("pretrain.corpus", absl::StrCat(weighted, " of ", pretrain.corpus_size(),
                                          " parts have a weight: give all of them one, or none"));
    }
    const uint64_t length = job_.model().max_length();
    if (length > 0 && pretrain.sequence_tokens() > length) {
      Add("pretrain.sequence_tokens", absl::StrCat("is ", pretrain.sequence_tokens(),
                                                   ", more than model.max_length ", length));
    }
    if (Given("pretrain.held_out_sequences") && pretrain.held_out_sequences() != 64 && !HoldsOut(job_)) {
      Add("pretrain.held_out_sequences", "has no effect without a held-out share: pretrain.split");
    }
  }

  // generate and score.
  void CheckGoesThrough() {
    const std::string kind = KindOf(job_);
    if (!job_.data().has_eval()) {
      Add("data.eval", absl::StrCat("is required by ", kind, ": the ",
                                    job_.has_score() ? "texts to score" : "prompts to complete"));
    }
    for (const char* key : {"data.train", "trainer", "checkpoint", "eval"}) {
      if (Given(key)) Add(key, absl::StrCat("has no effect in ", kind, ", which trains nothing"));
    }
    if (job_.has_score() && !job_.rewards().empty()) {
      Add("rewards", "have no effect in score, which generates nothing");
    }
    CheckSamples("generate.samples", job_.generate().samples(), job_.generate().temperature());
  }

  void CheckPlacement() {
    const v1::PlacementConfig& placement = job_.placement();
    if (placement.mode() != "shared") {
      Add("placement.mode", absl::StrCat("wants shared, or {trainer: [...], rollout: [...], "
                                         "reference: [...]}; got '",
                                         placement.mode(), "'"));
    }
    if (placement.has_group() && !IsName(placement.group())) {
      Add("placement.group", absl::StrCat("wants ", kNameRule, "; got '", placement.group(), "'"));
    }
    CheckDevices("placement.trainer", placement.trainer());
    CheckDevices("placement.rollout", placement.rollout());
    CheckDevices("placement.reference", placement.reference());
  }

  template <typename Devices>
  void CheckDevices(const std::string& key, const Devices& devices) {
    for (int i = 0; i < devices.size(); ++i) {
      uint32_t index = 0;
      const std::string& device = devices[i];
      bool gpu = device.rfind("gpu:", 0) == 0 && absl::SimpleAtoi(device.substr(4), &index);
      if (device != "cpu" && !gpu) {
        Add(absl::StrCat(key, ".", i), absl::StrCat("wants cpu or gpu:N, got '", device, "'"));
      }
    }
  }

  void CheckTruncation() {
    if (!job_.data().has_truncate()) return;
    if (job_.data().drop_long_prompts()) {
      Add("data.truncate", "cuts what data.drop_long_prompts: true leaves out; give one of the two");
    }
    if (job_.has_pretrain()) {
      Add("data.truncate", "has no effect: pretrain joins documents into sequences of pretrain.sequence_tokens");
    }
  }

  void CheckLengths() {
    if (!job_.model().has_max_length()) return;
    const v1::GrpoConfig* algorithm = PolicyGradientOf(job_);
    uint64_t completion = algorithm != nullptr ? algorithm->max_completion_tokens() : 0;
    uint64_t prompt = job_.data().max_prompt_tokens();
    if (prompt + completion > job_.model().max_length() ||
        completion >= job_.model().max_length()) {
      Add("model.max_length",
          absl::StrCat("is ", job_.model().max_length(), ", less than a prompt of ",
                       std::max<uint64_t>(prompt, 1), " and a completion of ", completion));
    }
  }

  void CheckAlgorithm(const v1::GrpoConfig& config) {
    const std::string kind = KindOf(job_);
    if (!job_.data().has_train()) {
      Add("data.train", absl::StrCat("is required by ", kind, ": the prompts to learn from"));
    }
    // A teacher that says of every token how likely it is takes their place.
    const bool taught = config.kl().coefficient() > 0 && config.kl().has_reference() &&
                        config.kl().place() == v1::KL_PLACE_REWARD;
    if (kind == "on_policy_distillation" && !config.kl().has_reference()) {
      Add(kind + ".kl.reference", "is required: the folder of the teacher");
    }
    if (job_.rewards().empty() && taught) {
      if (config.dynamic_sampling()) {
        Add(kind + ".dynamic_sampling", "looks for groups whose rewards differ, and there are no rewards");
      }
    } else if (job_.rewards().empty()) {
      Add("rewards", absl::StrCat("is required by ", kind, ": at least one, such as [{numeric: {}}]"));
    } else if (!taught && std::all_of(job_.rewards().begin(), job_.rewards().end(), [](const auto& r) {
                 return r.weight() == 0;
               })) {
      Add("rewards", "every weight is 0: there is nothing to learn");
    }
    CheckPolicyGradient(
        job_, config, [&](const std::string& key) { return Given(kind + "." + key); },
        [&](const std::string& key, const std::string& text) { Add(kind + "." + key, text); });
    if (config.has_updates()) CheckSchedule(config.updates());
  }

  void CheckTexts(const TextJob& text) {
    const std::string kind = KindOf(job_);
    if (!job_.data().has_train() && !job_.has_pretrain()) {
      Add("data.train", absl::StrCat("is required by ", kind, ": the answers to learn from"));
    }
    if (text.updates && text.passes != 1) {
      Add(kind + ".passes", absl::StrCat("has no effect beside ", kind, ".updates: give one of them"));
    }
    if (!job_.rewards().empty() && !job_.data().has_eval() && !job_.has_pretrain()) {
      Add("rewards", absl::StrCat("have no effect in ", kind, " without data.eval"));
    }
    if (text.updates) CheckSchedule(*text.updates);
    if (!job_.has_pretrain()) CheckColumns(text, kind);
    if (job_.has_dpo()) CheckDpo();
    if (job_.has_reward_model()) CheckRewardModel();
  }

  // Columns that another kind of job reads.
  void CheckColumns(const TextJob& text, const std::string& kind) {
    using Answers = TextJob::Answers;
    auto unused = [&](const char* column, bool used) {
      const std::string key = absl::StrCat("data.train.", column);
      if (!used && Given(key) && ColumnDiffers(column)) {
        Add(key, absl::StrCat("has no effect in ", kind));
      }
    };
    const bool pair = text.answers == Answers::kPair;
    unused("answer", !pair && text.answers != Answers::kSteps);
    unused("chosen", pair);
    unused("rejected", pair);
    unused("label", !pair && text.answers != Answers::kOne);
    unused("steps", text.answers == Answers::kSteps);
    unused("margin", pair && job_.has_reward_model());
    if (job_.has_sft() && job_.sft().train_on_prompt() &&
        job_.sft().turns() == v1::LEARNED_TURNS_LAST) {
      Add("sft.turns", "last cannot stand beside train_on_prompt: true, which learns everything");
    }
  }

  // Whether the user's name of a column is another than the default: a resolved job can be submitted again.
  bool ColumnDiffers(const std::string& column) const {
    const v1::DatasetConfig& data = job_.data().train();
    const FieldDescriptor& field = *data.GetDescriptor()->FindFieldByName(column);
    return data.GetReflection()->GetString(data, &field) != RulesOf(field).default_value();
  }

  void CheckDpo() {
    const v1::DpoConfig& dpo = job_.dpo();
    if (dpo.label_smoothing() > 0 && dpo.loss() != v1::DPO_LOSS_SIGMOID) {
      Add("dpo.label_smoothing", "has no effect with this loss: sigmoid only");
    }
  }

  void CheckRewardModel() {
    const v1::RewardModelConfig& model = job_.reward_model();
    const bool pairs = model.objective() == v1::REWARD_OBJECTIVE_PAIRS;
    const bool steps = model.objective() == v1::REWARD_OBJECTIVE_STEPS;
    if (!job_.rewards().empty()) {
      Add("rewards", "have no effect in reward_model, which generates nothing: data.eval is measured by the loss");
    }
    if (model.center_coefficient() > 0 && !pairs) Add("reward_model.center_coefficient", "wants objective: pairs");
    if (model.separator() != "\n" && !steps) Add("reward_model.separator", "wants objective: steps");
    if (steps && model.separator().empty()) Add("reward_model.separator", "is empty: nothing would end a step");
  }

  void CheckEvaluate() {
    if (!job_.data().has_eval()) Add("data.eval", "is required by evaluate: the prompts to score");
    if (job_.rewards().empty() && !job_.data().has_eval()) {
      Add("rewards", "is required by evaluate: at least one, such as [{numeric: {}}]");
    }
    for (const char* key : {"data.train", "trainer", "checkpoint"}) {
      if (Given(key)) Add(key, "has no effect in evaluate, which trains nothing");
    }
  }

  void CheckSchedule(uint64_t updates) {
    const v1::ScheduleConfig& schedule = job_.trainer().schedule();
    uint64_t warmup = schedule.has_constant() ? schedule.constant().warmup()
                      : schedule.has_linear() ? schedule.linear().warmup()
                      : schedule.has_cosine() ? schedule.cosine().warmup()
                      : schedule.has_wsd()
                          ? uint64_t{schedule.wsd().warmup()} + schedule.wsd().decay()
                          : 0;
    if (warmup > updates) {
      Add("trainer.schedule",
          absl::StrCat("warmup", schedule.has_wsd() ? " and decay take " : " takes ", warmup,
                       " updates, the job has ", updates));
    }
  }

  const v1::JobConfig& job_;
  const Places& places_;
  Problems& problems_;
};

}  // namespace

void CheckJob(const v1::JobConfig& job, const Places& places, Problems& problems) {
  JobChecker(job, places, problems).CheckAll();
}

}  // namespace rein::config
