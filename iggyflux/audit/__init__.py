"""Compare what a range of messages must have made with what a store holds.

The messages are read and rendered again; the points are sorted by measurement, time and series, and compared window by
window.  Each field of a point is judged by itself.  *Last* is a message if no later one of its partition, in the range,
makes the same field of the same point; between partitions there is no order, so each has its last.

| the message is | the store has                               | the field is  |
|----------------|---------------------------------------------|---------------|
| not the last   | anything, or nothing                        | overwritten   |
| the last       | its value                                   | there         |
| the last       | the value of the last of another partition  | overwritten   |
| the last       | another value                               | different     |
| the last       | nothing                                     | missing       |

| the fields of a point                | its time          | the point is  |
|--------------------------------------|-------------------|---------------|
| some are different                   | any               | different     |
| some are missing, none is different  | beyond retention  | expired       |
| some are missing, none is different  | within            | missing       |
| some are there, the rest overwritten | any               | there         |
| all are overwritten                  | any               | overwritten   |

A line that is in a dead letter was refused.  Where some field of a point would be different or missing, its refused
lines are dead-lettered, and the others are judged without them; else they were replayed, and count as the others.

A record that fails to render makes no point: it is dead-lettered if its message has a letter, else failed.

`points` takes lines apart, `sorting` sorts them, `window` judges, `letters` knows dead letters, `stored` asks the
store, `check` does all of it, `again` sends what is missing, `sources` opens the range.
"""
