/* SPDX-License-Identifier: MIT */
#include "instance.h"

#include <stdlib.h>
#include <string.h>

#include "host.h"
#include "options.h"

/* `values` are handed to the plugin, which may keep pointers to their texts until destroy, so
 * they live as long as the instance. */
struct whole_instance {
    struct instance instance;
    struct lathe_option_value *values;
};

static int call_create(struct instance *instance, const char *owner, const struct lathe_option_value *values,
                       struct lathe_error *err)
{
    const struct lathe_api_head *head = instance->api;
    struct lathe_config config = { sizeof config, instance->plugin->option_count, values };
    struct lathe_error why = { 0 };
    void *self = NULL;
    int rc = head->create(&instance->host, &config, &self, &why);
    why.message[sizeof why.message - 1] = '\0';
    if (rc > 0)
        return lathe_fail(err, LATHE_EINTERNAL, "%s: create returned %d, which is no status", owner, rc);
    if (rc != LATHE_OK && why.message[0] == '\0')
        return lathe_fail(err, rc, "%s: create failed with status %d and gave no reason", owner, rc);
    if (rc != LATHE_OK)
        return lathe_fail(err, rc, "%s: %.440s", owner, why.message);
    if (!self)
        return lathe_fail(err, LATHE_EINTERNAL, "%s: create said it succeeded, but returned no instance", owner);
    instance->self = self;
    return LATHE_OK;
}

int instance_of_entry(const struct registry_entry *entry, const struct option_setting *settings, size_t setting_count,
                      struct instance **instance, struct lathe_error *err)
{
    const struct lathe_plugin *plugin = entry->plugin;
    char owner[96];
    snprintf(owner, sizeof owner, "%s/%s", kind_name(entry->kind), entry->name);
    struct whole_instance *whole = calloc(1, sizeof *whole);
    if (!whole)
        return lathe_fail(err, LATHE_ENOMEM, "%s: no memory for an instance", owner);
    struct instance *made = &whole->instance;
    made->entry = entry;
    made->plugin = plugin;
    made->api = plugin->api;
    int rc = options_resolve(entry->kind, owner, plugin->options, plugin->option_count, settings, setting_count,
                             &whole->values, err);
    if (rc == LATHE_OK) {
        made->values = whole->values;
        made->options_json = options_json(plugin->options, whole->values, plugin->option_count);
        made->context = host_context_create(owner, NULL, &made->host);
        if (!made->options_json || !made->context)
            rc = lathe_fail(err, LATHE_ENOMEM, "%s: no memory for an instance", owner);
    }
    if (rc == LATHE_OK)
        rc = call_create(made, owner, whole->values, err);
    if (rc != LATHE_OK) {
        instance_destroy(made);
        return rc;
    }
    *instance = made;
    return LATHE_OK;
}

void instance_destroy(struct instance *instance)
{
    if (!instance)
        return;
    struct whole_instance *whole = (struct whole_instance *)(void *)instance;
    const struct lathe_api_head *head = instance->api;
    if (instance->self)
        head->destroy(instance->self);
    host_context_destroy(instance->context);
    free(instance->options_json);
    free(whole->values);
    free(whole);
}

void instance_attach(struct instance *instance, struct clock *clock, struct producer *producer)
{
    host_context_attach(instance->context, clock, producer);
}

const void *instance_extension(const struct instance *instance, const char *id)
{
    const struct lathe_api_head *head = instance->api;
    return head->get_extension ? head->get_extension(instance->self, id) : NULL;
}
