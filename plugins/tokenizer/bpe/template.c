/* SPDX-License-Identifier: MIT */
#include "template.h"
int template_render(const struct lathe_host *host, struct template_job *job, struct lathe_error *err)
{
    (void)host, (void)job;
    return lathe_fail(err, LATHE_EUNSUPPORTED, "chat templates aren't supported yet: write the prompt as plain text");
}
