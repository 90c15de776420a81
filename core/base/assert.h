// assert: states what must hold; on in release builds too; never checks input. Prints the claim, file and line, and aborts.

#ifndef CORE_BASE_ASSERT_H
#define CORE_BASE_ASSERT_H

_Noreturn void assert_failed(const char *claim, const char *file, int line);

#undef assert
#define assert(claim) ((claim) ? (void)0 : assert_failed(#claim, __FILE__, __LINE__))

#endif
