#include "common/rpc/reflection.h"

#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <google/protobuf/descriptor_database.h>
#include <gtest/gtest.h>

#include "common/rpc/channel.h"
#include "common/rpc/server.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "rein/v1/annotations.pb.h"
#include "rein/v1/reward.grpc.pb.h"

namespace rein::rpc {
namespace {

namespace reflection = grpc::reflection::v1;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class ReflectionTest : public testing::Test {
 protected:
  void Start(bool reflects) {
    ServerOptions options{.address = "127.0.0.1:0"};
    options.reflection = reflects;
    auto server = Server::Create(std::move(options), {&service_});
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }

  // The answers to several questions on one stream.
  std::vector<reflection::ServerReflectionResponse> Ask(const std::vector<reflection::ServerReflectionRequest>& requests) {
    auto stub = reflection::ServerReflection::NewStub(Connect(server_->address()));
    grpc::ClientContext context;
    auto stream = stub->ServerReflectionInfo(&context);
    std::vector<reflection::ServerReflectionResponse> responses;
    for (const auto& request : requests) {
      reflection::ServerReflectionResponse response;
      if (!stream->Write(request) || !stream->Read(&response)) break;
      responses.push_back(response);
    }
    stream->WritesDone();
    status_ = stream->Finish();
    return responses;
  }

  reflection::ServerReflectionRequest Symbol(const std::string& name) {
    reflection::ServerReflectionRequest request;
    request.set_file_containing_symbol(name);
    return request;
  }

  v1::RewardService::Service service_;
  std::unique_ptr<Server> server_;
  grpc::Status status_;
};

TEST_F(ReflectionTest, IsOffUnlessAskedFor) {
  Start(false);
  EXPECT_TRUE(Ask({Symbol("rein.v1.RewardService")}).empty());
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::UNIMPLEMENTED);
}

TEST_F(ReflectionTest, ListsWhatThisServerServesAndNoMore) {
  Start(true);
  reflection::ServerReflectionRequest list;
  list.set_list_services("");
  const auto responses = Ask({list});
  ASSERT_EQ(responses.size(), 1);
  std::vector<std::string> names;
  for (const auto& service : responses[0].list_services_response().service()) names.push_back(service.name());
  EXPECT_THAT(names, Contains("rein.v1.RewardService"));
  EXPECT_THAT(names, Contains("grpc.reflection.v1.ServerReflection"));
  EXPECT_THAT(names, Not(Contains("rein.v1.ControllerService")));
  EXPECT_TRUE(status_.ok());
}

// A client that knows nothing makes all types of a method from the files that it gets.
TEST_F(ReflectionTest, TellsAFileWithAllThatItNeeds) {
  Start(true);
  const auto responses = Ask({Symbol("rein.v1.RewardService.Score"), Symbol("rein.v1.RewardService")});
  ASSERT_EQ(responses.size(), 2);
  google::protobuf::SimpleDescriptorDatabase files;
  for (const std::string& bytes : responses[0].file_descriptor_response().file_descriptor_proto()) {
    google::protobuf::FileDescriptorProto file;
    ASSERT_TRUE(file.ParseFromString(bytes));
    EXPECT_TRUE(files.Add(file)) << file.name() << " comes twice";
  }
  google::protobuf::DescriptorPool pool(&files);
  const auto* method = pool.FindMethodByName("rein.v1.RewardService.Score");
  ASSERT_NE(method, nullptr);
  EXPECT_EQ(method->input_type()->DebugString(), v1::ScoreRewardsRequest::descriptor()->DebugString());
  EXPECT_EQ(responses[1].file_descriptor_response().SerializeAsString(),
            responses[0].file_descriptor_response().SerializeAsString());
}

TEST_F(ReflectionTest, TellsFilesAndExtensions) {
  Start(true);
  reflection::ServerReflectionRequest file, extension, numbers;
  file.set_file_by_filename("rein/v1/reward.proto");
  extension.mutable_file_containing_extension()->set_containing_type("google.protobuf.MethodOptions");
  extension.mutable_file_containing_extension()->set_extension_number(v1::access.number());
  numbers.set_all_extension_numbers_of_type("google.protobuf.MethodOptions");
  const auto responses = Ask({file, extension, numbers});
  ASSERT_EQ(responses.size(), 3);
  google::protobuf::FileDescriptorProto told;
  ASSERT_TRUE(told.ParseFromString(responses[0].file_descriptor_response().file_descriptor_proto(0)));
  EXPECT_EQ(told.name(), "rein/v1/reward.proto");
  ASSERT_TRUE(told.ParseFromString(responses[1].file_descriptor_response().file_descriptor_proto(0)));
  EXPECT_EQ(told.name(), "rein/v1/annotations.proto");
  EXPECT_THAT(responses[2].all_extension_numbers_response().extension_number(), Contains(v1::access.number()));
}

TEST_F(ReflectionTest, SaysWhatIsNotThere) {
  Start(true);
  reflection::ServerReflectionRequest file, extension, numbers;
  file.set_file_by_filename("no.proto");
  extension.mutable_file_containing_extension()->set_containing_type("rein.v1.Nothing");
  numbers.set_all_extension_numbers_of_type("rein.v1.Nothing");
  const auto responses = Ask({Symbol("rein.v1.Nothing"), file, extension, numbers, {}});
  ASSERT_EQ(responses.size(), 5);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(responses[i].error_response().error_code(), grpc::StatusCode::NOT_FOUND) << i;
  EXPECT_EQ(responses[0].error_response().error_message(), "no symbol rein.v1.Nothing");
  EXPECT_EQ(responses[4].error_response().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(responses[4].error_response().error_message(), HasSubstr("set one of message_request"));
}

}  // namespace
}  // namespace rein::rpc
