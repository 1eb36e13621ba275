/* SPDX-License-Identifier: MIT */
/* OTLP/JSON: opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest in the JSON that the OTLP specification
 * asks for. Two things differ from what protobuf's own JSON does: ids are hexadecimal, not base64. Numbers of 64 bits
 * are strings in both.
 *
 * A file has one such object a line, as OpenTelemetry's file exporter writes and its collector's otlpjsonfile
 * receiver reads. */
#include <inttypes.h>

#include "export.h"
#include "product.h"

enum { SPANS_A_BATCH = 1000 };

static const char *comma(const struct text *text)
{
    return text->count ? "," : "";
}

void span_text(struct text *attributes, const char *name, const char *value)
{
    if (!value)
        return;
    text_print(attributes, "%s{\"key\":\"%s\",\"value\":{\"stringValue\":", comma(attributes), name);
    text_json(attributes, value);
    text_add(attributes, "}}", 2);
}

void span_number(struct text *attributes, const char *name, int64_t value)
{
    text_print(attributes, "%s{\"key\":\"%s\",\"value\":{\"intValue\":\"%" PRId64 "\"}}", comma(attributes), name, value);
}

void span_link(struct spans *s, const char *trace_id, const char *span_id)
{
    text_print(&s->links, "%s{\"traceId\":\"%s\",\"spanId\":\"%s\"}", comma(&s->links), trace_id, span_id);
}

int span_add(struct spans *s, const struct span *span, struct lathe_error *err)
{
    struct text *b = &s->batch;
    if (s->in_batch == 0)
        text_print(b, "{\"resourceSpans\":[{\"resource\":{\"attributes\":[%s]},\"scopeSpans\":[{\"scope\":{\"name\":\"lathe\",\"version\":\"%s\"},"
                      "\"spans\":[", s->resource.bytes ? s->resource.bytes : "", product_version());
    text_print(b, "%s{\"traceId\":\"%s\",\"spanId\":\"%s\"", s->in_batch ? "," : "", span->trace_id, span->span_id);
    if (span->parent_id && *span->parent_id)
        text_print(b, ",\"parentSpanId\":\"%s\"", span->parent_id);
    text_print(b, ",\"name\":");
    text_json(b, span->name);
    text_print(b, ",\"kind\":%d,\"startTimeUnixNano\":\"%" PRId64 "\",\"endTimeUnixNano\":\"%" PRId64 "\"", span->kind, span->from_ns,
               span->to_ns < span->from_ns ? span->from_ns : span->to_ns);
    if (s->attributes.count)
        text_print(b, ",\"attributes\":[%s]", s->attributes.bytes);
    if (s->links.count)
        text_print(b, ",\"links\":[%s]", s->links.bytes);
    if (span->failure) {
        text_print(b, ",\"status\":{\"code\":2,\"message\":");
        text_json(b, span->failure);
        text_add(b, "}", 1);
    }
    text_add(b, "}", 1);
    b->failed |= s->attributes.failed | s->links.failed | s->resource.failed;
    s->attributes.count = s->links.count = 0;
    s->in_batch++;
    s->all++;
    return s->in_batch == SPANS_A_BATCH ? spans_flush(s, err) : LATHE_OK;
}

int spans_flush(struct spans *s, struct lathe_error *err)
{
    int status = LATHE_OK;
    if (s->in_batch == 0)
        return LATHE_OK;
    text_print(&s->batch, "]}]}]}");
    if (s->batch.failed)
        return lathe_fail(err, LATHE_ENOMEM, "no memory for a batch of spans");
    if (s->out)
        fprintf(s->out, "%s\n", s->batch.bytes);
    if (s->push)
        status = otlp_push_send(s->push, s->batch.bytes, s->batch.count, err);
    s->batch.count = s->in_batch = 0;
    s->batches++;
    return status;
}
