// The files of page/, as they were when the program was built.

#pragma once

#include <string>

namespace rein::services {

std::string PageHtml();
std::string PageScript();
std::string PageTokensScript();
std::string PageChatScript();
std::string PageStyle();

}  // namespace rein::services
