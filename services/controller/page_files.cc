#include "services/controller/page_files.h"

// REIN_PAGE_FOLDER is set by the build. The assembler reads the files; the labels mark their ends.
#define REIN_PAGE_FILE(symbol, file)                                                     \
  asm(".section .rodata\n.balign 1\n" #symbol "_begin:\n.incbin \"" REIN_PAGE_FOLDER "/" \
      file "\"\n" #symbol "_end:\n.byte 0\n.previous\n");                                \
  extern "C" const char symbol##_begin[];                                                \
  extern "C" const char symbol##_end[]

REIN_PAGE_FILE(rein_page_html, "index.html");
REIN_PAGE_FILE(rein_page_script, "app.js");
REIN_PAGE_FILE(rein_page_tokens, "tokens.js");
REIN_PAGE_FILE(rein_page_chat, "chat.js");
REIN_PAGE_FILE(rein_page_style, "style.css");

namespace rein::services {

std::string PageHtml() { return {rein_page_html_begin, rein_page_html_end}; }
std::string PageScript() { return {rein_page_script_begin, rein_page_script_end}; }
std::string PageTokensScript() { return {rein_page_tokens_begin, rein_page_tokens_end}; }
std::string PageChatScript() { return {rein_page_chat_begin, rein_page_chat_end}; }
std::string PageStyle() { return {rein_page_style_begin, rein_page_style_end}; }

}  // namespace rein::services
