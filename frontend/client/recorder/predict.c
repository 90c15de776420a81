// Prediction of reads. The manual is predict.h.

#include "frontend/client/recorder/predict.h"

void predict_begin(struct plan_entry *entry)
{
    for (uint32_t i = 0; i < entry->reads;) {
        if (++entry->read[i].misses > PREDICT_MISSES_MAX)
            entry->read[i] = entry->read[--entry->reads];
        else
            i++;
    }
}

bool predict_wants(const struct plan_entry *entry, uint32_t flat, const struct value *value)
{
    for (uint32_t i = 0; i < entry->reads; i++)
        if (entry->read[i].flat == flat)
            return tensor_bytes(&value->meta) <= RECORDER_PREDICTED_BYTES_MAX;
    return false;
}

void predict_learn(struct recorder *recorder, const struct value *value)
{
    if (value->kind != VALUE_HANDLE || value->exec->entry == NULL || tensor_bytes(&value->meta) > RECORDER_PREDICTED_BYTES_MAX)
        return;
    struct plan_entry *entry = value->exec->entry;
    if (entry->plan != value->exec->plan)
        return;    // recycled since
    for (uint32_t i = 0; i < entry->reads; i++)
        if (entry->read[i].flat == value->flat) {
            entry->read[i].misses = 0;
            recorder->stats.reads_predicted += value->was_predicted;
            return;
        }
    if (entry->reads == RECORDER_PREDICTIONS_MAX)
        return;
    entry->read[entry->reads].flat = value->flat;
    entry->read[entry->reads++].misses = 0;
}
